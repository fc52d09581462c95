//! The reference vision worker of the assistant: tells the size and the dominant colours of a picture.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use serde_json::{Value, json};

use super::{Job, Worker};
use crate::message::{Body, Code, Fault};

/// Wider or higher pictures are refused before they are decoded.
const MAX_SIDE: u32 = 16_384;
/// Memory one picture may take while it is decoded.
const MAX_MEMORY: u64 = 256 << 20;
/// How many colours are told.
const COLOURS: usize = 5;
/// Colours are compared in steps of this many levels.
const STEP: u8 = 32;
/// Pixels looked at, at most about so many, spread over the picture.
const SAMPLES: u64 = 250_000;

/// The vision worker.
pub(super) struct Vision;

/// What a picture looks like.
#[derive(Debug, PartialEq)]
struct Findings {
    width: u32,
    height: u32,
    format: &'static str,
    /// Most frequent first: `#rrggbb` and its share.
    colours: Vec<(String, f64)>,
}

fn analyse(bytes: &[u8]) -> Result<Findings, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let format = match reader.format() {
        Some(ImageFormat::Png) => "png",
        Some(ImageFormat::Jpeg) => "jpeg",
        _ => return Err("it is neither PNG nor JPEG".to_owned()),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| error.to_string())?;
    Ok(Findings {
        width: picture.width(),
        height: picture.height(),
        format,
        colours: colours(&picture),
    })
}

/// The average of each group of similar colours, transparent pixels left out.
fn colours(picture: &DynamicImage) -> Vec<(String, f64)> {
    let (width, height) = (picture.width(), picture.height());
    let pixels = u64::from(width) * u64::from(height);
    let stride = pixels.div_ceil(SAMPLES).max(1);
    let mut groups: std::collections::HashMap<[u8; 3], [u64; 4]> = std::collections::HashMap::new();
    let mut seen = 0_u64;
    let mut at = 0;
    while at < pixels {
        let (x, y) = (at % u64::from(width), at / u64::from(width));
        at += stride;
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            break;
        };
        let image::Rgba([r, g, b, alpha]) = image::GenericImageView::get_pixel(picture, x, y);
        if alpha < 128 {
            continue;
        }
        seen += 1;
        let sums = groups.entry([r / STEP, g / STEP, b / STEP]).or_default();
        for (sum, part) in sums.iter_mut().zip([r, g, b, 1]) {
            *sum += u64::from(part);
        }
    }
    let mut ranked: Vec<_> = groups.into_iter().collect();
    ranked.sort_by_key(|(key, sums)| (std::cmp::Reverse(sums[3]), *key));
    ranked
        .into_iter()
        .take(COLOURS)
        .map(|(_, [r, g, b, count])| {
            let colour = format!("#{:02x}{:02x}{:02x}", r / count, g / count, b / count);
            #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
            let share = (count as f64 / seen as f64 * 1000.0).round() / 1000.0;
            (colour, share)
        })
        .collect()
}

async fn perform(job: &Job) -> Result<Body, Fault> {
    let params = job.work.params()?;
    let Some(text) = params.get("image").and_then(Value::as_str) else {
        return Err(Fault::new(
            Code::Invalid,
            "'image' is missing: a PNG or JPEG as base64 text",
        ));
    };
    // as pages write pictures: data:image/png;base64,…
    let text = match text.strip_prefix("data:") {
        Some(url) => url.split_once(',').map_or("", |(_, data)| data),
        None => text,
    };
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|error| Fault::new(Code::Invalid, format!("'image' is no base64: {error}")))?;
    job.ack().await;
    let looked = tokio::task::spawn_blocking(move || analyse(&bytes)).await;
    let found = looked
        .map_err(|error| Fault::new(Code::WorkerError, error.to_string()))?
        .map_err(|why| Fault::new(Code::Invalid, format!("'image' cannot be read: {why}")))?;
    let colours: Vec<Value> = found
        .colours
        .iter()
        .map(|(colour, share)| json!({"colour": colour, "share": share}))
        .collect();
    let body = json!({
        "width": found.width, "height": found.height, "format": found.format, "colours": colours,
    });
    Ok(Body::json(body.to_string()))
}

impl Worker for Vision {
    fn name(&self) -> &'static str {
        "vision"
    }

    fn description(&self) -> &'static str {
        "Reference vision worker: size and dominant colours of a picture"
    }

    fn actions(&self) -> &'static [&'static str] {
        &["analyse_image"]
    }

    fn handle<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Body, Fault>> {
        perform(job).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(format: ImageFormat) -> Vec<u8> {
        let picture = image::RgbImage::from_fn(40, 10, |x, _| {
            image::Rgb(if x < 30 { [200, 0, 0] } else { [0, 0, 240] })
        });
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(picture)
            .write_to(&mut bytes, format)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn size_and_colours_are_found() {
        let found = analyse(&painted(ImageFormat::Png)).unwrap();
        assert_eq!((found.width, found.height, found.format), (40, 10, "png"));
        let expected = [("#c80000".to_owned(), 0.75), ("#0000f0".to_owned(), 0.25)];
        assert_eq!(found.colours, expected);
        let found = analyse(&painted(ImageFormat::Jpeg)).unwrap();
        assert_eq!((found.width, found.height, found.format), (40, 10, "jpeg"));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for bytes in [&b""[..], b"GIF89a", &painted(ImageFormat::Png)[..60]] {
            assert!(analyse(bytes).is_err());
        }
    }
}
