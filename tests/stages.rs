//! One direction of flow: a stage may use `ir` and stages before it, never one after it.

use std::path::{Path, PathBuf};

/// Stages of `src/` in the order that data flows; what is not listed is a front end and may use all.
const ORDER: &[&str] = &["import", "emit", "tensorrt", "runtime"];

/// What may be used against the order, and why.
const EXCEPTIONS: &[(&str, &str)] = &[];

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn no_stage_uses_a_later_one() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut seen = 0;
    for (at, stage) in ORDER.iter().enumerate() {
        let mut files = Vec::new();
        rust_files(&source.join(stage), &mut files);
        seen += files.len();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for later in ORDER.iter().skip(at + 1).filter(|later| !EXCEPTIONS.contains(&(stage, later))) {
                if text.contains(&format!("crate::{later}")) {
                    found.push(format!("{}: uses {later}", file.display()));
                }
            }
        }
    }
    assert!(seen > 10, "the stages' files were not found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}
