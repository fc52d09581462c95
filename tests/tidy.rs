//! The house's own rules, as tests: who may use whom, what is pure, how long and how titled a file is.
#![allow(clippy::unwrap_used)] // tests say what they expect

#[path = "tidy/pages.rs"]
mod pages;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each room may use beside itself. A new arrow is a decision, taken here.
const ARROWS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &["cli"]),
    // the directory for whoever asks at the command line who serves
    ("cli", &["app", "bus::directory", "config", "telemetry", "worker"]),
    (
        "app",
        &[
            "bus",
            "config",
            "dialect",
            "edge",
            "gateway",
            "message",
            "telemetry",
        ],
    ),
    ("config", &["dialect", "message"]),
    ("message", &[]),
    ("wire", &[]),
    ("dialect", &["message", "wire"]),
    ("bus", &["config", "message"]),
    (
        "edge",
        &[
            "bus",
            "config",
            "dialect",
            "gateway",
            "message",
            "telemetry",
            "wire",
        ],
    ),
    (
        "gateway",
        &[
            "bus",
            "config",
            "dialect",
            "message",
            "picture",
            "telemetry",
            "wire",
        ],
    ),
    ("picture", &[]),
    ("telemetry", &["config", "message"]),
    // only the contract, and what of it is not only names: that it is enough is what the reference workers are there
    // to show
    (
        "worker",
        &[
            "bus::contract",
            "bus::lease",
            "bus::login",
            "config",
            "message",
            "picture",
        ],
    ),
];

/// Rooms that know no runtime, clock, environment, log or metric.
const PURE: &[&str] = &[
    "src/message",
    "src/wire",
    "src/dialect",
    "src/bus/contract",
    "src/bus/bodies/reference",
];

/// What a pure room must not say.
const IMPURE: &[&str] = &[
    "tokio",
    "async ",
    ".await",
    "Instant",
    "SystemTime::now",
    "std::env",
    "env::var",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "tracing",
    "prometheus",
    "async_nats",
    "crate::telemetry",
    "println!",
];

/// Everything that may lie at the top.
const TOP: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".dockerignore",
    ".env.example",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "dashboards",
    "deploy",
    "docker-compose.yml",
    "src",
    "tests",
];

const LONGEST: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project, new ones included; what git ignores is none.
fn files() -> Vec<PathBuf> {
    // a checkout that another user owns is still this project
    let listed = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git lists the project's files (apt-get install git)");
    let why = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "the tests run in a git checkout: {why}");
    let text = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
    assert!(files.len() > 50, "git listed almost nothing");
    files
        .into_iter()
        .filter(|path| root().join(path).is_file())
        .collect()
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(fs::read(root().join(path)).ok()?).ok()
}

fn has(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| extensions.contains(&extension))
}

fn told(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// The lines of a source file that are neither comments nor its tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, line))
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let rust = |path: &PathBuf| path.starts_with("src") && has(path, &["rs"]);
    files()
        .into_iter()
        .filter(rust)
        .map(|path| (path.clone(), read(&path).unwrap()))
}

fn room(path: &Path) -> String {
    let first = path.components().nth(1).unwrap();
    Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// Paths after `crate::` in a line, one level of braces opened.
fn used(line: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || "_:".contains(*letter))
            .collect()
    };
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(['}', ',']).map(name).filter(|name| !name.is_empty())),
            None => found.push(name(rest)),
        }
    }
    found
}

#[test]
fn rooms_use_only_the_rooms_they_may() {
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        let own = room(&path);
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == own) else {
            broken.push(format!("{}: the room {own} has no row in ARROWS", path.display()));
            continue;
        };
        for (line, text) in code(&text) {
            for used in used(text) {
                let allowed = |path: &&str| used == **path || used.starts_with(&format!("{path}::"));
                match may.iter().find(|path| allowed(path)) {
                    Some(arrow) => {
                        seen.insert((own.clone(), *arrow));
                    }
                    None if used == own || used.starts_with(&format!("{own}::")) => {}
                    None => broken.push(format!("{}:{line}: {own} must not use {used}", path.display())),
                }
            }
        }
    }
    told(&broken);
    assert!(seen.len() > 15, "the test found only {seen:?}; it has gone blind");
}

#[test]
fn pure_rooms_are_pure() {
    let pure = |path: &Path| {
        let path = path.to_str().unwrap();
        PURE.iter().any(|room| {
            path.strip_prefix(room)
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    let mut broken = Vec::new();
    let mut looked = 0;
    for (path, text) in sources().filter(|(path, _)| pure(path)) {
        looked += 1;
        for (line, text) in code(&text) {
            for word in IMPURE.iter().filter(|word| text.contains(**word)) {
                broken.push(format!(
                    "{}:{line}: `{word}` in a pure room: {}",
                    path.display(),
                    text.trim()
                ));
            }
        }
    }
    told(&broken);
    assert!(looked > 20, "only {looked} files looked at");
}

#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    let generated = ["Cargo.lock", "LICENSE", "deploy/docs/asyncapi.json"];
    // dashboards are written by the program that shows them; transcripts grow with the protocol
    let data = |path: &Path| path.starts_with("dashboards") || path.starts_with("tests/vectors");
    let mut broken = Vec::new();
    for path in files() {
        if generated.contains(&path.to_str().unwrap()) || data(&path) {
            continue;
        }
        let lines = read(&path).map_or(0, |text| text.lines().count());
        if lines > LONGEST {
            broken.push(format!(
                "{}: {lines} lines; split it where its topics part",
                path.display()
            ));
        }
    }
    told(&broken);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let mut broken = Vec::new();
    for path in files() {
        let Some(text) = read(&path) else { continue };
        let mut lines = text.lines().skip_while(|line| line.starts_with("#!/"));
        let first = lines.next().unwrap_or_default();
        let titled = if has(&path, &["rs"]) {
            first.starts_with("//! ")
        } else if has(&path, &["py"]) {
            first.starts_with("\"\"\"") || first.starts_with("# ")
        } else if has(&path, &["md"]) {
            first.starts_with("<!-- ") || first.starts_with("# ")
        } else if has(&path, &["html"]) {
            text.lines().take(2).any(|line| line.starts_with("<!-- "))
        } else if has(&path, &["js", "mjs", "ts", "tsx"]) {
            first.starts_with("// ")
        } else if has(&path, &["sh", "toml", "yml", "yaml", "conf", "txt", "example"])
            || path.extension().is_none() && path.file_name().is_some_and(|name| name != "LICENSE")
        {
            first.starts_with("# ")
        } else {
            true
        };
        if !titled && !path.starts_with("tests/vectors") {
            broken.push(format!(
                "{}: the first line does not say what the file is for: {first}",
                path.display()
            ));
        }
    }
    told(&broken);
}

#[test]
fn nothing_else_lies_at_the_top() {
    let top: BTreeSet<String> = files()
        .iter()
        .map(|path| {
            path.components()
                .next()
                .unwrap()
                .as_os_str()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let strangers: Vec<&String> = top.iter().filter(|name| !TOP.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "not in TOP: {strangers:?}");
}

#[test]
fn modules_are_files_with_names() {
    let broken: Vec<String> = files()
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "mod.rs"))
        .map(|path| format!("{}: write foo.rs beside foo/", path.display()))
        .collect();
    told(&broken);
}

#[test]
fn unsafe_code_and_panics_stay_out() {
    let words = [
        ".unwrap()",
        ".expect(\"",
        "unsafe ",
        "todo!(",
        "unimplemented!(",
        "dbg!(",
    ];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        for (line, text) in code(&text) {
            for word in words.iter().filter(|word| text.contains(**word)) {
                broken.push(format!("{}:{line}: {word}: {}", path.display(), text.trim()));
            }
        }
    }
    told(&broken);
}
