//! The fuzzer's corpus of the worker's protocol, replayed by the ordinary test run.

use std::{fs, path::Path};

#[test]
fn the_corpus_is_read_without_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/wire");
    let inputs: Vec<_> = fs::read_dir(&folder).expect("the corpus is part of the project").filter_map(Result::ok).collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        transcode::wire::fuzz(&fs::read(input.path()).expect("it can be read"));
    }
}
