//! What pages promise is there: the tests they name, and where their links lead.

use std::path::Path;

use super::{files, has, read, root, told};

#[test]
fn the_promises_name_tests_that_exist() {
    let readme = read(Path::new("README.md")).unwrap();
    let mut named = 0;
    let mut broken = Vec::new();
    for word in readme.split('`').filter(|word| word.starts_with("tests/")) {
        let Some((file, test)) = word.split_once("::") else {
            continue;
        };
        named += 1;
        let text = read(Path::new(file)).unwrap_or_default();
        if !text.contains(&format!("fn {test}(")) && !text.contains(&format!("def {test}(")) {
            broken.push(format!("README.md: there is no {word}"));
        }
    }
    told(&broken);
    assert!(named > 10, "only {named} tests named");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files().iter().filter(|path| has(path, &["md"])) {
        let text = read(path).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            let beside = root().join(path).with_file_name("").join(file);
            if !beside.exists() {
                broken.push(format!("{}: {target} leads nowhere", path.display()));
            }
        }
    }
    told(&broken);
}
