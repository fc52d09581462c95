//! The supervised nats-server: started, restarted on its port with its data, ended with the gateway, and its start errors.
#![allow(clippy::expect_used, clippy::print_stdout)] // tests say what they expect

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use causeway::bus::supervise::{SuperviseError, Supervised};
use causeway::config;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("causeway-test-{}", ulid::Ulid::new()));
        std::fs::create_dir_all(&path).expect("scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(store: &Path, port: u16) -> config::Nats {
    config::Nats {
        port,
        store: store.to_path_buf(),
        server: "nats-server".into(),
        ..config::Nats::default()
    }
}

/// Waits for what must come; panics with its name when it does not.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came: {what}");
}

fn alive(pid: u32) -> bool {
    // a zombie has ended; in containers its reaper may be slow
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("").starts_with('Z'))
}

/// Ends a process that should have ended by itself, so that a failing test leaves none.
struct Reap(u32);

impl Drop for Reap {
    fn drop(&mut self) {
        if alive(self.0) {
            kill(self.0);
        }
    }
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill").success());
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_data() {
    let scratch = Scratch::new();
    let server = Supervised::start(&settings(&scratch.0, 0)).await.expect("start");
    let url = server.url();
    let client = async_nats::connect(&url).await.expect("connect");
    assert_eq!(client.server_info().max_payload, 1 << 20);
    let context = jetstream::new(client);
    let config = stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept.>".into()],
        ..stream::Config::default()
    };
    context.create_stream(config).await.expect("stream");
    let stored = context.publish("kept.a", "one".into()).await.expect("publish");
    stored.await.expect("stored");

    let first = server.pid().expect("pid");
    let monitoring = server.monitoring().expect("monitoring");
    assert!(monitoring.ip().is_loopback());
    tokio::net::TcpStream::connect(monitoring)
        .await
        .expect("monitoring answers");
    kill(first);
    eventually("a new process", || async {
        server.pid().is_some_and(|pid| pid != first)
    })
    .await;
    assert_eq!(server.restarts(), 1);
    assert_eq!(server.url(), url);

    let client = async_nats::connect(&url).await.expect("connect again");
    let stream = jetstream::new(client)
        .get_stream("KEPT")
        .await
        .expect("stream is kept");
    let kept = stream.direct_get(1).await;
    let kept = match kept {
        Ok(message) => message.payload,
        Err(_) => stream.get_raw_message(1).await.expect("message is kept").payload,
    };
    assert_eq!(&kept[..], b"one");

    let second = server.pid().expect("pid");
    server.stop().await;
    assert!(!alive(second), "stop leaves no process");
    assert!(
        TcpListener::bind(url.trim_start_matches("nats://")).is_ok(),
        "stop frees the port"
    );
    let left = std::fs::read_dir(scratch.0.join("run")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "stop leaves no run directory");
}

#[tokio::test]
async fn a_taken_port_names_its_holder_and_what_to_set() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port();
    let error = Supervised::start(&settings(&scratch.0, port))
        .await
        .expect_err("port is taken");
    let text = error.to_string();
    let SuperviseError::PortTaken { holder, .. } = error else {
        panic!("another error: {text}");
    };
    assert_eq!(holder.expect("holder").pid, std::process::id());
    for part in [
        &port.to_string(),
        "nats.url",
        "nats.port",
        &std::process::id().to_string(),
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[tokio::test]
async fn a_missing_binary_names_the_command_that_installs_it() {
    let scratch = Scratch::new();
    for server in ["nats-server-that-is-nowhere", "/nowhere/nats-server"] {
        let mut nats = settings(&scratch.0, 0);
        nats.server = server.into();
        let error = Supervised::start(&nats).await.expect_err("nothing to start");
        assert!(matches!(error, SuperviseError::Missing(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("apt-get install nats-server") && text.contains(server),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_no_directory_is_named() {
    let scratch = Scratch::new();
    let file = scratch.0.join("file");
    std::fs::write(&file, "in the way").expect("file");
    let error = Supervised::start(&settings(&file, 0))
        .await
        .expect_err("no store");
    assert!(matches!(error, SuperviseError::Store { .. }), "{error}");
    assert!(error.to_string().contains("nats.store"), "{error}");
}

#[tokio::test]
async fn a_store_is_never_shared_by_two_servers() {
    let scratch = Scratch::new();
    let first = Supervised::start(&settings(&scratch.0, 0)).await.expect("start");
    let error = Supervised::start(&settings(&scratch.0, 0))
        .await
        .expect_err("store in use");
    assert!(matches!(error, SuperviseError::StoreInUse(_)), "{error}");
    assert!(first.pid().is_some_and(alive), "the first is left alone");
    first.stop().await;
    let again = Supervised::start(&settings(&scratch.0, 0))
        .await
        .expect("free again");
    again.stop().await;
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_quoted() {
    let scratch = Scratch::new();
    let fake = scratch.0.join("nats-server");
    std::fs::write(
        &fake,
        "#!/bin/sh\necho '[7] 2026/01/01 00:00:00.000000 [FTL] no such luck' >&2\nexit 3\n",
    )
    .expect("script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).expect("mode");
    let mut nats = settings(&scratch.0, 0);
    nats.server = fake;
    let error = Supervised::start(&nats).await.expect_err("it ends");
    let text = error.to_string();
    assert!(matches!(error, SuperviseError::Exited { .. }), "{text}");
    assert!(text.contains("no such luck") && text.contains('3'), "{text}");
}

#[tokio::test]
async fn a_gateway_told_to_end_while_its_server_starts_ends_at_once() {
    let scratch = Scratch::new();
    // runs, and never takes clients
    let (fake, told) = (scratch.0.join("nats-server"), scratch.0.join("pid"));
    std::fs::write(
        &fake,
        format!("#!/bin/sh\necho $$ >'{}'\nexec sleep 300\n", told.display()),
    )
    .expect("script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).expect("mode");
    let mut serve = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"));
    let given = std::env::vars().map(|(name, _)| name);
    for name in given.filter(|name| name.starts_with("GW_")) {
        serve.env_remove(name);
    }
    for dialect in ["VOICE", "ASSISTANT", "SCRIPTING", "CAD"] {
        serve.env(format!("GW_{dialect}_PORT"), "off");
    }
    let mut gateway = serve
        .args(["serve", "--port", "0", "--set", "ops.port=0"])
        .env("GW_NATS_SERVER", &fake)
        .env("GW_NATS_STORE", scratch.0.join("store"))
        .current_dir(&scratch.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("gateway");
    let pid = || std::fs::read_to_string(&told).ok()?.trim().parse::<u32>().ok();
    eventually("a server", || async { pid().is_some() }).await;
    let server = Reap(pid().expect("pid"));
    let own = gateway.id().expect("pid").to_string();
    let status = Command::new("kill").args(["-TERM", &own]).status();
    assert!(status.expect("kill").success());
    // without an ear for it the gateway would wait for its server, and then fail for it
    assert!(gateway.wait().await.expect("an end").success());
    eventually("the server's end", || async { !alive(server.0) }).await;
}

/// Set for the process that stands in for a gateway in the test below.
const STAND_IN: &str = "CAUSEWAY_TEST_STORE";

/// No test of its own: what the next test runs as another process.
#[test]
fn stand_in_for_a_gateway() {
    let Some(store) = std::env::var_os(STAND_IN) else {
        return;
    };
    // the runtime's threads come and go; the server must outlive the one that asked for it
    let build = || tokio::runtime::Runtime::new().expect("runtime");
    let runtime = build();
    let nats = settings(Path::new(&store), 0);
    let asked = std::thread::scope(|scope| {
        let starting = scope.spawn(|| runtime.block_on(Supervised::start(&nats)).expect("start"));
        starting.join().expect("started")
    });
    println!("\nserver {}", asked.pid().expect("pid"));
    std::thread::sleep(Duration::from_secs(120));
}

#[tokio::test]
async fn a_killed_gateway_takes_its_server_with_it() {
    let scratch = Scratch::new();
    let mut gateway = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "stand_in_for_a_gateway", "--nocapture"])
        .env(STAND_IN, &scratch.0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("gateway");
    let lines = BufReader::new(gateway.stdout.take().expect("stdout")).lines();
    let pid: u32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("server ")?.parse().ok())
        .expect("the server's pid");
    let _reap = Reap(pid);
    assert!(alive(pid), "the server runs");
    gateway.kill().expect("kill -9");
    gateway.wait().expect("reaped");
    eventually("the server's end", || async { !alive(pid) }).await;
    // and the next gateway takes over the store at once
    let next = Supervised::start(&settings(&scratch.0, 0))
        .await
        .expect("the store is free");
    next.stop().await;
}
