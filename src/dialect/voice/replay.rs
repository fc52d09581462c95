//! Packs history into `replay` frames that the clients' library accepts.

use crate::dialect::Frame;
use crate::message::Nanos;

use super::frame::Pen;

/// The python client closes with 1009 on anything larger.
const LIMIT: usize = 1_048_576;

/// More than a replay frame has around its elements.
const AROUND: usize = 160;

/// Puts `events` into as few frames below [`LIMIT`] as their order allows. Every element stands twice in its frame
/// (`data.events` for the documented shape, `events` for the dashboard), so one too large to be doubled goes out alone,
/// as the ordinary event it is.
pub(super) fn split(now: Nanos, events: &[Frame], out: &mut Vec<Frame>) {
    let cost = |event: &Frame| 2 * (event.bytes().len() + 1);
    let mut rest = events;
    while let Some(first) = rest.first() {
        if AROUND + cost(first) >= LIMIT {
            out.push(first.clone());
            rest = &rest[1..];
            continue;
        }
        let mut size = AROUND;
        let fits = rest
            .iter()
            .take_while(|event| {
                size += cost(event);
                size < LIMIT
            })
            .count();
        let (now_sent, later) = rest.split_at(fits);
        out.push(pack(now, now_sent));
        rest = later;
    }
}

fn pack(now: Nanos, events: &[Frame]) -> Frame {
    let payload: usize = events.iter().map(|event| event.bytes().len() + 1).sum();
    let mut pen = Pen::new(2 * payload);
    pen.raw("{\"type\":\"replay\",\"data\":{\"count\":")
        .plain(events.len())
        .raw(",\"events\":[");
    list(&mut pen, events);
    pen.raw("]},\"events\":[");
    list(&mut pen, events);
    pen.raw("]").timestamp(now).raw("}").frame()
}

fn list(pen: &mut Pen, events: &[Frame]) {
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            pen.raw(",");
        }
        pen.bytes(event.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: usize, size: usize) -> Frame {
        let mut text = format!("{{\"seq\":{seq},\"data\":\"");
        text.push_str(&"x".repeat(size.saturating_sub(text.len() + 2)));
        text.push_str("\"}");
        Frame::text(text)
    }

    /// Sequence numbers in the order a client meets them, from both lists and from events sent alone.
    fn seen(frames: &[Frame]) -> Vec<u64> {
        let mut seen = Vec::new();
        for frame in frames {
            let json: serde_json::Value = serde_json::from_slice(frame.bytes()).unwrap();
            if json["type"] == "replay" {
                assert!(frame.bytes().len() < LIMIT, "{}", frame.bytes().len());
                assert_eq!(json["events"], json["data"]["events"]);
                let list = json["events"].as_array().unwrap();
                assert_eq!(json["data"]["count"], list.len());
                assert!(!list.is_empty());
                seen.extend(list.iter().map(|event| event["seq"].as_u64().unwrap()));
            } else {
                seen.push(json["seq"].as_u64().unwrap());
            }
        }
        seen
    }

    #[test]
    fn nothing_to_replay_is_no_frame() {
        let mut out = Vec::new();
        split(0, &[], &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn two_megabytes_are_split_in_order() {
        let events: Vec<_> = (1..=100).map(|seq| event(seq, 20_000)).collect();
        let mut out = Vec::new();
        split(0, &events, &mut out);
        assert_eq!(seen(&out), (1..=100).collect::<Vec<_>>());
        assert_eq!(out.len(), 4);
    }

    #[test]
    fn every_size_around_half_the_limit_keeps_order_and_limit() {
        for size in (LIMIT / 2 - 120)..(LIMIT / 2 + 4) {
            let events = [event(1, 50), event(2, size), event(3, 50), event(4, size)];
            let mut out = Vec::new();
            split(u64::MAX, &events, &mut out);
            assert_eq!(seen(&out), [1, 2, 3, 4], "{size}");
        }
    }
}
