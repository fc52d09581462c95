//! Dashboards, rules and runbooks against the metrics there are: nothing asks for what is not, nothing is not asked for.
#![allow(clippy::unwrap_used)] // tests say what they expect

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use causeway::telemetry::metrics::{Metrics, Work};
use serde_json::Value;

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every `gw_` metric of the program, as a scrape names it.
fn there() -> BTreeSet<String> {
    let metrics = Metrics::new(&["voice"]);
    let work = Work {
        service: "voice".into(),
        worker: "w".into(),
        requests: 1,
        errors: 1,
        seconds: 1.0,
    };
    metrics.set_work(vec![work], |_, _| true);
    metrics.set_instances([("voice", 1)]);
    let text = metrics.text();
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    typed
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with("gw_"))
        .map(str::to_owned)
        .collect()
}

/// The `gw_` metrics a query names. Recorded figures (`dialect:gw_…`) are not metrics.
fn asked(query: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    query
        .split(|c| !word(c))
        .filter(|name| name.starts_with("gw_"))
        .map(|name| {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| name.strip_suffix(part));
            whole.unwrap_or(name).to_owned()
        })
        .collect()
}

fn boards() -> Vec<(String, Value)> {
    let mut boards: Vec<(String, Value)> = fs::read_dir(root("dashboards"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.display().to_string(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    boards.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!boards.is_empty());
    boards
}

fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
}

#[test]
fn every_metric_is_on_a_dashboard_and_every_dashboard_asks_for_metrics_there_are() {
    let mut shown = BTreeSet::new();
    for (_, board) in boards() {
        for panel in panels(&board) {
            for target in panel["targets"].as_array().unwrap() {
                shown.extend(asked(target["expr"].as_str().unwrap()));
            }
        }
    }
    let there = there();
    let unknown: Vec<_> = shown.difference(&there).collect();
    let unseen: Vec<_> = there.difference(&shown).collect();
    assert!(
        unknown.is_empty(),
        "on a dashboard, but not measured: {unknown:?}"
    );
    assert!(unseen.is_empty(), "measured, but on no dashboard: {unseen:?}");
}

#[test]
fn every_panel_says_what_it_is_and_in_which_unit() {
    for (file, board) in boards() {
        assert!(board["uid"].is_string(), "{file}: no uid");
        let mut ids = BTreeSet::new();
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(ids.insert(panel["id"].as_u64()), "{file}: {title}: its id twice");
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.len() > 10, "{file}: {title}: no description");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            let axis = &panel["options"]["yAxis"]["unit"];
            assert!(unit.is_string() || axis.is_string(), "{file}: {title}: no unit");
        }
    }
}

/// Series are there from the start at 0, but a quantile or a mean of nothing is no number.
#[test]
fn what_is_computed_is_zero_while_nothing_happens() {
    for (file, board) in boards() {
        for panel in panels(&board).filter(|panel| panel["type"] != "heatmap") {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let computed = query.contains("histogram_quantile") || query.contains(" / (sum");
                assert!(
                    !computed || query.contains(" or "),
                    "{file}: {}: {query}",
                    panel["title"]
                );
            }
        }
    }
}

#[test]
fn rules_ask_for_metrics_there_are_and_every_alert_has_a_runbook() {
    let rules = fs::read_to_string(root("deploy/prometheus/rules/causeway.yml")).unwrap();
    let unknown: Vec<_> = asked(&rules).difference(&there()).cloned().collect();
    assert!(unknown.is_empty(), "in a rule, but not measured: {unknown:?}");
    let books = fs::read_to_string(root("deploy/docs/runbooks.md")).unwrap();
    let titles: BTreeSet<&str> = books
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let alerts: BTreeSet<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(!alerts.is_empty());
    assert_eq!(alerts, titles, "alerts on the left, runbooks on the right");
    for alert in alerts {
        let link = format!("runbooks.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} does not point at its runbook");
    }
}

#[test]
fn dashboards_mention_only_runbooks_that_exist() {
    let books = fs::read_to_string(root("deploy/docs/runbooks.md")).unwrap();
    for (file, board) in boards() {
        for panel in panels(&board) {
            let description = panel["description"].as_str().unwrap_or_default();
            for mention in description.split("runbook ").skip(1) {
                let name: String = mention.chars().take_while(char::is_ascii_alphanumeric).collect();
                assert!(
                    books.contains(&format!("\n## {name}\n")),
                    "{file}: runbook {name}"
                );
            }
        }
    }
}
