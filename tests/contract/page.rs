//! The published page of the contract says what the code does: every table row against its definition.

use std::collections::BTreeMap;

use causeway::bus::contract::headers::{self, CommandHead, FactHead};
use causeway::bus::contract::{self, streams};
use causeway::config::Config;
use causeway::dialect;
use causeway::message::{Class, Code};
use serde_json::Value;

const PAGE: &str = include_str!("../../deploy/docs/contract.md");

/// The rows of every table that begins with this column, cells without their backticks.
fn table(first_columns: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = Vec::new();
    let mut inside = false;
    for line in PAGE.lines() {
        if !line.starts_with('|') {
            inside = false;
        } else if !inside
            && cells(line)[..].starts_with(&first_columns.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>())
        {
            inside = true;
        } else if inside && !line.starts_with("|---") {
            rows.push(cells(line));
        }
    }
    assert!(!rows.is_empty(), "the page has no table {first_columns:?}");
    rows
}

fn bare(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn subjects_of_the_page() {
    let sample = |template: &str| template.replace(['<', '>'], "");
    let built = [
        contract::command("space", "service", "action"),
        contract::cancel("space", "service"),
        contract::fact(Class::Event, "space", "dialect", "topic"),
        contract::fact(Class::State, "space", "dialect", "topic"),
        contract::live("space", "dialect").map(|subject| subject.replace(".>", ".")),
        contract::lease("space", "service"),
        contract::sys("path"),
    ];
    let rows = table(&["subject"]);
    assert_eq!(rows.len(), built.len());
    for (row, built) in rows.iter().zip(built) {
        assert_eq!(Ok(sample(bare(&row[0]))), built);
    }
    for row in table(&["name", "token"]) {
        assert_eq!(contract::token(bare(&row[0])), bare(&row[1]));
    }
    for limit in [
        format!("{} tokens", contract::SUBJECT_TOKENS),
        format!("{} bytes", contract::SUBJECT_BYTES),
        format!("less {} bytes", contract::HEADER_ROOM),
    ] {
        assert!(PAGE.contains(&limit), "the page does not say {limit:?}");
    }
}

#[test]
fn headers_of_the_page() {
    let command: Vec<&str> = CommandHead {
        id: "1",
        time: 1,
        session: "s",
        deadline_ms: 1,
        correlation: Some("c"),
        content_type: Some("t"),
        traceparent: Some("p"),
    }
    .list()
    .iter()
    .map(|(name, _)| *name)
    .collect();
    let fact: Vec<&str> = FactHead {
        id: "1",
        time: 1,
        session: Some("s"),
        content_type: Some("t"),
        traceparent: Some("p"),
        expected: Some(1),
    }
    .list()
    .iter()
    .map(|(name, _)| *name)
    .collect();
    let all = [
        headers::MSG_ID,
        headers::TIME,
        headers::SESSION,
        headers::CONTENT_TYPE,
        headers::TRACEPARENT,
        headers::DEADLINE,
        headers::CORRELATION,
        headers::STATUS,
        headers::ERROR,
        headers::ERROR_CODE,
        headers::BODY,
        headers::EXPECTED,
        headers::STREAM,
        headers::SUBJECT,
        headers::SEQUENCE,
        headers::LAST_SEQUENCE,
    ];
    let rows = table(&["header"]);
    let names: Vec<&str> = rows.iter().map(|row| bare(&row[0])).collect();
    assert_eq!(names, all);
    for row in &rows {
        let (name, on) = (bare(&row[0]), &row[1]);
        // a body is referred to only where it is large, so no head lists it
        if name != headers::BODY {
            assert_eq!(
                on.contains("commands"),
                command.contains(&name),
                "{name} on commands"
            );
            assert_eq!(on.contains("facts"), fact.contains(&name), "{name} on facts");
        }
        assert_eq!(
            on.contains("live"),
            [
                headers::STREAM,
                headers::SUBJECT,
                headers::SEQUENCE,
                headers::LAST_SEQUENCE
            ]
            .contains(&name)
        );
    }
}

#[test]
fn codes_of_the_page() {
    let expected: Vec<[String; 2]> = Code::ALL
        .iter()
        .map(|code| [code.number().to_string(), format!("`{}`", code.name())])
        .collect();
    let rows = table(&["number", "name"]);
    let rows: Vec<&[String]> = rows.iter().map(|row| &row[..2]).collect();
    assert_eq!(rows, expected.iter().map(|row| &row[..]).collect::<Vec<_>>());
}

#[test]
fn routes_of_the_page() {
    let mut expected = Vec::new();
    let real = || dialect::ALL.iter().filter(|dialect| dialect.name() != "echo");
    for dialect in real() {
        for (action, service) in dialect.routes() {
            expected.push(vec![
                format!("`{}`", dialect.name()),
                format!("`{action}`"),
                format!("`{service}`"),
            ]);
        }
    }
    expected.sort();
    let mut rows = table(&["dialect", "action"]);
    rows.sort();
    assert_eq!(rows, expected);
    let mut told: Vec<String> = table(&["dialect", "an event's topic and body become"])
        .iter()
        .map(|row| bare(&row[0]).to_owned())
        .collect();
    told.sort();
    let mut names: Vec<&str> = real().map(|dialect| dialect.name()).collect();
    names.sort_unstable();
    assert_eq!(told, names);
}

#[test]
fn streams_of_the_page() {
    let words = |value: &Value, none: &str, word: &dyn Fn(u64) -> String| match value.as_i64() {
        Some(number) if number > 0 => word(number.unsigned_abs()),
        _ => none.to_owned(),
    };
    let hours = |nanos: u64| {
        let age = std::time::Duration::from_nanos(nanos);
        match age.as_secs() {
            secs if secs % 3600 == 0 => format!("{} h", secs / 3600),
            secs => format!("{secs} s"),
        }
    };
    let rows: BTreeMap<String, Vec<String>> = table(&["stream"])
        .into_iter()
        .map(|row| (bare(&row[0]).to_owned(), row))
        .collect();
    let defaults = Config::defaults();
    let definitions = streams::definitions(&defaults.events);
    assert_eq!(rows.len(), definitions.len());
    for definition in definitions {
        let config = &definition.config;
        let per_subject = words(&config["max_msgs_per_subject"], "every message", &|count| {
            format!("the last {count} of a subject")
        });
        let age = words(&config["max_age"], "", &|nanos| format!(", {}", hours(nanos)));
        let expected = vec![
            format!("`{}`", definition.name),
            format!("`{}`", config["subjects"][0].as_str().unwrap_or("")),
            config["storage"].as_str().unwrap_or("").to_owned(),
            per_subject + &age,
            words(&config["max_bytes"], "no limit", &|bytes| {
                format!("{} GiB", bytes >> 30)
            }),
            match config["discard"].as_str() {
                Some("new") => "new ones are refused".to_owned(),
                _ => "old ones go first".to_owned(),
            },
            config["republish"]["dest"]
                .as_str()
                .map_or("-".to_owned(), |to| format!("`{to}`")),
        ];
        assert_eq!(
            rows.get(definition.name),
            Some(&expected),
            "expected | {} |",
            expected.join(" | ")
        );
    }
}

#[test]
fn bodies_of_the_page() {
    use causeway::bus::bodies::reference::{Bucket, MAX_SIZE};
    let rows = table(&["bucket"]);
    let names: Vec<&str> = rows.iter().map(|row| bare(&row[0])).collect();
    assert_eq!(names, Bucket::ALL.map(Bucket::name));
    assert!(PAGE.contains(&format!("At most {} MiB", MAX_SIZE >> 20)));
    let dialects = Config::defaults();
    assert!(PAGE.contains(&format!(
        "within {} s (`commands.deadline`)",
        dialects.commands.deadline.as_secs()
    )));
}

#[test]
fn the_asyncapi_document_is_the_programs_own() {
    let document = causeway::edge::asyncapi::document();
    let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/docs/asyncapi.json");
    if std::env::var_os("UPDATE").is_some() {
        assert!(std::fs::write(path, &text).is_ok());
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == text,
        "stale: UPDATE=1 cargo test --test contract asyncapi"
    );
    // every reference leads somewhere
    for reference in text.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().unwrap_or_default();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
