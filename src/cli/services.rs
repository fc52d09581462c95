//! `causeway services`: who serves on NATS, asked as any NATS tool asks, for machines that have none.

use std::fmt::Write as _;

pub(super) use crate::bus::directory::NoRoll;
use crate::bus::directory::{EndpointStats, Instance, Stats, roll};
use crate::config::Nats;

/// Of a description, so that a line stays one.
const WIDEST: usize = 60;

/// Everybody who serves, or every instance of one service and what it listens on, as a table.
pub(super) async fn list(nats: &Nats, service: Option<&str>) -> Result<String, NoRoll> {
    let found = roll(nats, service).await?;
    let shown = match service {
        Some(name) if found.is_empty() => format!("no instance of {name} answers"),
        None if found.is_empty() => "nobody serves".to_owned(),
        _ => table(&found, service.is_some()),
    };
    Ok(format!("{shown}\n"))
}

/// Lines of columns as wide as what is in them.
fn table(found: &[(Instance, Option<Stats>)], endpoints: bool) -> String {
    let head = ["SERVICE", "VERSION", "ID", "REQUESTS", "ERRORS", "MEAN", "WHAT"];
    let mut rows = vec![head.map(str::to_owned)];
    for (instance, stats) in found {
        let all = stats.as_ref().map(|stats| stats.endpoints.as_slice());
        let [requests, errors, mean] = counted(all);
        let (name, version, id) = (&instance.name, &instance.version, &instance.id);
        let what = plain(&instance.description);
        rows.push([
            name.clone(),
            plain(version),
            id.clone(),
            requests,
            errors,
            mean,
            what,
        ]);
        let listed = instance.endpoints.iter().filter(|_| endpoints);
        for endpoint in listed {
            let own = all.and_then(|all| all.iter().find(|own| own.subject == endpoint.subject));
            let [requests, errors, mean] = counted(own.map(std::slice::from_ref));
            let (name, none) = (format!("  {}", plain(&endpoint.name)), String::new());
            let what = plain(&endpoint.subject);
            rows.push([name, none.clone(), none, requests, errors, mean, what]);
        }
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (nth, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if nth > 0 { "  " } else { "" };
            // figures stand below each other by their last digit
            let _ = match nth {
                3..=5 => write!(line, "{gap}{cell:>width$}"),
                _ => write!(line, "{gap}{cell:<width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let services: std::collections::BTreeSet<&str> =
        found.iter().map(|(instance, _)| instance.name.as_str()).collect();
    let _ = write!(
        out,
        "{} of {}",
        many(found.len(), "instance"),
        many(services.len(), "service")
    );
    out
}

/// Requests, errors and the mean time of one request; a dash for what is not known.
fn counted(endpoints: Option<&[EndpointStats]>) -> [String; 3] {
    let dash = || "-".to_owned();
    let Some(endpoints) = endpoints else {
        return [dash(), dash(), dash()];
    };
    let total = EndpointStats::total(endpoints);
    let mean = match total.requests {
        0 => dash(),
        requests => format!(
            "{:.1} ms",
            total.processing_time.as_secs_f64() * 1e3 / requests as f64
        ),
    };
    [total.requests.to_string(), total.errors.to_string(), mean]
}

/// What others wrote, fit for a line of a terminal.
fn plain(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WIDEST + 1)
        .collect();
    if shown.chars().count() > WIDEST {
        shown.pop();
        shown.pop();
        shown.push('…');
    }
    shown
}

fn many(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::{plain, table};
    use crate::bus::directory::{Endpoint, EndpointStats, Instance, Stats};

    fn greeter(id: &str) -> Instance {
        Instance {
            name: "greeter".into(),
            id: id.into(),
            version: "1.0.0".into(),
            description: "Greets".into(),
            endpoints: vec![Endpoint {
                name: "greet".into(),
                subject: "gw.v1.cmd.*.greeter.greet".into(),
                ..Endpoint::default()
            }],
            metadata: BTreeMap::new(),
            last_seen: Instant::now(),
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let stats = Stats {
            name: "greeter".into(),
            id: "A".into(),
            version: "1.0.0".into(),
            started: String::new(),
            endpoints: vec![EndpointStats {
                subject: "gw.v1.cmd.*.greeter.greet".into(),
                requests: 20,
                errors: 1,
                processing_time: Duration::from_millis(50),
                ..EndpointStats::default()
            }],
        };
        let found = [(greeter("A"), Some(stats)), (greeter("BCD"), None)];
        assert_eq!(
            table(&found, false),
            "SERVICE  VERSION  ID   REQUESTS  ERRORS    MEAN  WHAT\n\
             greeter  1.0.0    A          20       1  2.5 ms  Greets\n\
             greeter  1.0.0    BCD         -       -       -  Greets\n\
             2 instances of 1 service"
        );
        let [first, _] = found;
        assert_eq!(
            table(&[first], true),
            "SERVICE  VERSION  ID  REQUESTS  ERRORS    MEAN  WHAT\n\
             greeter  1.0.0    A         20       1  2.5 ms  Greets\n  \
               greet                     20       1  2.5 ms  gw.v1.cmd.*.greeter.greet\n\
             1 instance of 1 service"
        );
    }

    #[test]
    fn what_others_wrote_moves_no_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a [2Jb c");
        assert_eq!(plain(&"x".repeat(200)).chars().count(), 60);
    }
}
