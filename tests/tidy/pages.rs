//! What pages promise is there: the tests they name, and where their links lead.

use std::collections::BTreeSet;
use std::path::Path;

use super::{files, has, read, root, told};

const PROMISES: &str = "deploy/docs/promises.md";

fn page(path: &str) -> String {
    read(Path::new(path)).unwrap()
}

/// Whether a file has a test of that name.
fn tests(file: &str, name: &str) -> bool {
    let text = read(Path::new(file)).unwrap_or_default();
    text.contains(&format!("fn {name}(")) || text.contains(&format!("def {name}("))
}

/// The address of a heading, as the forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The headings of a page, as addresses.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// Where the links of a text lead.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The rows of the README's table: where what is promised leads, the test that is named, and its file.
fn rows(readme: &str) -> Vec<(String, String, String)> {
    let table = readme.split("\n## Promises\n").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    table
        .lines()
        .filter(|line| line.starts_with("| ["))
        .map(|line| {
            let links: Vec<&str> = targets(line).collect();
            let name = line.rsplit('`').nth(1).unwrap_or_default();
            match links.as_slice() {
                [promise, file] => ((*promise).to_owned(), name.to_owned(), (*file).to_owned()),
                _ => panic!("README.md: a row is a promise with its link, and a test with its file: {line}"),
            }
        })
        .collect()
}

#[test]
fn each_promise_names_a_test_and_has_all_of_them_on_its_page() {
    let mut broken = Vec::new();
    let promises = page(PROMISES);
    let mut sections: Vec<(String, &str)> = promises
        .split("\n## ")
        .skip(1)
        .map(|section| (anchor(section.lines().next().unwrap()), section))
        .collect();
    let rows = rows(&page("README.md"));
    assert!(rows.len() > 10, "the test found only {} promises", rows.len());
    for (promise, name, file) in rows {
        if !tests(&file, &name) {
            broken.push(format!("README.md: there is no {name} in {file}"));
        }
        let place = sections
            .iter()
            .position(|(own, _)| promise == format!("{PROMISES}#{own}"));
        match place.map(|place| sections.remove(place)) {
            None => broken.push(format!("README.md: {promise} is no section of its own")),
            Some((_, section)) if !section.contains(&format!("`{file}::{name}`")) => {
                broken.push(format!("{PROMISES}: {promise} does not list {file}::{name}"));
            }
            Some(_) => {}
        }
    }
    for (own, section) in sections {
        if section.contains("`tests/") {
            broken.push(format!("{PROMISES}: {own} is no row of the README"));
        }
    }
    told(&broken);
}

#[test]
fn the_tests_that_pages_name_exist() {
    let mut named = 0;
    let mut broken = Vec::new();
    for path in files().iter().filter(|path| has(path, &["md"])) {
        let text = read(path).unwrap();
        for word in text.split('`').filter(|word| word.starts_with("tests/")) {
            let Some((file, test)) = word.split_once("::") else {
                continue;
            };
            named += 1;
            if !tests(file, test) {
                broken.push(format!("{}: there is no {word}", path.display()));
            }
        }
    }
    told(&broken);
    assert!(named > 40, "only {named} tests named");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files().iter().filter(|path| has(path, &["md"])) {
        let text = read(path).unwrap();
        for target in targets(&text).filter(|target| !target.starts_with("http")) {
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let beside = match file {
                "" => path.clone(),
                file => path.with_file_name("").join(file),
            };
            let there = root().join(&beside).exists();
            let leads = place.is_empty() || read(&beside).is_some_and(|text| anchors(&text).contains(place));
            if !there || !leads {
                broken.push(format!("{}: {target} leads nowhere", path.display()));
            }
        }
    }
    told(&broken);
}
