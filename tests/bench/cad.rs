//! CAD beside the upstream viewer's own servers: from a model sent to the last page served, and what large ones hold.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::report::{head, median, row, verdict};
use crate::servers::{Server, Servers, free_port};
use crate::socket::{BINARY, Socket, TEXT, find, framed};
use crate::{Outcome, Plan, SPACE};

/// Models as they are in practice: a box, a plate with holes, hundreds of parts.
const SIZES: [(&str, usize); 3] = [("4 kB", 4 << 10), ("1 MB", 1 << 20), ("12 MB", 12 << 20)];
/// Models of each size sent in one turn: the smaller they are, the more a single one says of the machine's mood.
const TURNS: [usize; 3] = [20, 8, 2];
/// Hundreds of megabytes in one go: no answer within this is a failure of the run, not a number in it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pages that look at once.
const VIEWERS: usize = 20;
/// Bytes held while the largest goes to all pages, in models.
const HELD: f64 = 3.0;
/// Time of the largest to one page, against upstream; smaller ones are to be faster.
const RATIO: f64 = 1.2;

/// An upstream server: how it is called, and the module that starts it.
const UPSTREAM: [(&str, &str, &str); 2] = [
    ("upstream 3", "3", "ocp_vscode"),
    ("upstream 4", "4", "ocp_viewer"),
];

/// One that runs; ends with the value, and what it wrote goes with it.
struct Upstream {
    name: &'static str,
    server: Server,
    _scratch: Scratch,
}

/// A directory for as long as the value lives.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where pages and scripts connect.
#[derive(Clone)]
struct Place {
    address: SocketAddr,
    path: String,
}

impl Place {
    fn gateway(server: &Server) -> Self {
        Self {
            address: server.websocket,
            path: format!("/cad/s/{SPACE}"),
        }
    }

    async fn open(&self) -> Outcome<Socket> {
        Socket::open(self.address, &self.path).await
    }
}

/// Measures and prints.
pub(crate) async fn run(plan: &Plan) -> Outcome<()> {
    let mut upstream = Vec::new();
    for (name, generation, module) in UPSTREAM {
        match start_upstream(name, generation, module).await? {
            Some(server) => upstream.push(server),
            None => println!("cad: {name} left out; `tests/setup/cad` installs it"),
        }
    }
    let servers = Servers::start(plan).await?;
    let Some(gateway) = &servers.gateway else {
        return Ok(());
    };
    let place = Place::gateway(gateway);
    println!("cad: memory ...");
    let held = held(&place, gateway).await?;
    println!("cad: {VIEWERS} pages ...");
    let mut all = Vec::new();
    for (_, size) in SIZES {
        all.push(served(&place, size, VIEWERS, plan.repeats).await?);
    }
    println!("cad: one page ...");
    let mut sides = vec![place];
    sides.extend(upstream.iter().map(|upstream| Place {
        address: upstream.server.websocket,
        path: "/".to_owned(),
    }));
    // by turns, so that a busy moment of the machine meets all alike
    let mut one = vec![vec![Vec::new(); SIZES.len()]; sides.len()];
    for _ in 0..plan.repeats {
        for (side, place) in sides.iter().enumerate() {
            for (at, ((_, size), turns)) in SIZES.iter().zip(TURNS).enumerate() {
                one[side][at].push(served(place, *size, 1, turns).await?);
            }
        }
    }
    for (side, upstream) in upstream.iter().enumerate() {
        head(upstream.name);
        for (at, (size, _)) in SIZES.iter().enumerate() {
            let (ours, theirs) = (median(&one[0][at]), median(&one[side + 1][at]));
            let theirs = theirs.unwrap_or(f64::NAN);
            let most = if at + 1 == SIZES.len() { RATIO } else { 1.0 };
            row(
                &format!("{size} to one page, ms"),
                ours,
                theirs,
                ours.map(|ours| verdict(&format!("<= {most} x"), ours <= most * theirs)),
            );
        }
    }
    println!();
    for ((size, _), time) in SIZES.iter().zip(&all) {
        println!("{size} to the last of {VIEWERS} pages: {time:.1} ms");
    }
    let largest = SIZES[SIZES.len() - 1].1 as f64;
    println!(
        "held while 12 MB go to {VIEWERS} pages: {:.1} MB over base, {:.1} models  {}",
        held / 1e6,
        held / largest,
        verdict("<= 3 models", held <= HELD * largest)
    );
    Ok(())
}

/// Milliseconds from the first byte of a model sent to the last byte at the last page; the median of some runs.
async fn served(place: &Place, size: usize, pages: usize, repeats: usize) -> Outcome<f64> {
    let mut audience = Vec::new();
    for _ in 0..pages {
        let mut page = place.open().await?;
        page.send(TEXT, b"L:{}").await?;
        audience.push(page);
    }
    let mut times = Vec::new();
    // the first one warms up
    for run in 0..=repeats {
        joined(place, &mut audience).await?;
        let model = model(size, run);
        let mut script = place.open().await?;
        let mut frame = Vec::with_capacity(size + 512);
        framed(&mut frame, BINARY, &[b"D:", model.as_slice()].concat());
        let mut hearing = JoinSet::new();
        for mut page in audience.drain(..) {
            let size = model.len();
            hearing.spawn(async move {
                until(&mut page, |text| text.len() == size).await?;
                Outcome::Ok((page, Instant::now()))
            });
        }
        let sent = Instant::now();
        script.write(&frame).await?;
        let mut last = sent;
        while let Some(page) = hearing.join_next().await {
            let (page, at) = page??;
            audience.push(page);
            last = last.max(at);
        }
        if run > 0 {
            times.push(last.duration_since(sent).as_secs_f64() * 1e3);
        }
    }
    Ok(median(&times).unwrap_or(f64::NAN))
}

/// Bytes the gateway holds at most while its first large model goes to all pages, over what it held before.
async fn held(place: &Place, gateway: &Server) -> Outcome<f64> {
    served(place, SIZES[0].1, VIEWERS, 1).await?;
    let before = gateway.resident()?;
    gateway.forget_peak()?;
    served(place, SIZES[SIZES.len() - 1].1, VIEWERS, 0).await?;
    Ok(gateway.peak()? - before)
}

/// Returns when all pages get what is sent from now on; says it again to those that were not there yet.
async fn joined(place: &Place, pages: &mut [Socket]) -> Outcome<()> {
    for page in pages {
        loop {
            let mut script = place.open().await?;
            // upstream hangs up on who speaks while it still has a page that left: then it is said again
            let _ = script
                .send(BINARY, br#"C:{"type":"set_relative_time","value":0.5}"#)
                .await;
            let heard = until(page, |text| {
                text.len() < 99 && find(text, b"relative_time").is_some()
            });
            if let Ok(heard) = timeout(Duration::from_millis(500), heard).await {
                heard?;
                break;
            }
        }
    }
    Ok(())
}

async fn until(page: &mut Socket, wanted: impl Fn(&[u8]) -> bool) -> Outcome<()> {
    let hearing = timeout(PATIENCE, async {
        while !wanted(page.next().await?) {}
        Ok(())
    });
    hearing.await.map_err(|_| "a page is not served")?
}

/// A model of about this size; no two are alike.
fn model(size: usize, number: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut seed = number as u32 + 1;
    let mut text = br#"{"data":{"instances":[{"vertices":{"shape":[1],"dtype":"float32","buffer":""#.to_vec();
    text.extend((0..size).map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ALPHABET[(seed >> 26) as usize]
    }));
    text.extend_from_slice(
        br#"","codec":"b64"}}],"shapes":{"version":3,"parts":[],"name":"Group","id":"/Group"}},"type":"data","config":{"axes":false,"reset_camera":"keep"},"count":1}"#,
    );
    text
}

/// The upstream server of a generation, where its packages are installed.
async fn start_upstream(name: &'static str, generation: &str, module: &str) -> Outcome<Option<Upstream>> {
    let home = std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let python = cache.join("causeway/cad").join(generation).join("bin/python");
    if !python.exists() {
        return Ok(None);
    }
    let folder = format!("causeway-bench-{}-{generation}", std::process::id());
    let scratch = Scratch(std::env::temp_dir().join(folder));
    std::fs::create_dir_all(&scratch.0)?;
    let port = free_port()?;
    let child = Command::new(python)
        .args(["-m", module, "--port", &port.to_string()])
        // it notes its port in its user's home
        .env("HOME", &scratch.0)
        .current_dir(&scratch.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let server = Server::new(child, port);
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        if begun.elapsed() > Duration::from_secs(90) {
            return Err(format!("{module} does not listen").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(Some(Upstream {
        name,
        server,
        _scratch: scratch,
    }))
}
