//! Replays `fuzz/corpus/directives`: every input that was worth keeping goes through the same body again.
//!
//! `scripts/fuzz.sh directives` finds new ones.

use std::{fs, path::Path};

#[test]
fn directives_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/directives");
    let inputs: Vec<_> = fs::read_dir(&folder).expect("the corpus is part of the project").collect();
    assert!((1..40).contains(&inputs.len()), "{} inputs: merge them before they are committed", inputs.len());
    for input in inputs {
        let path = input.expect("it can be listed").path();
        println!("{}", path.display());
        packager::hls::directives::fuzz(&fs::read(&path).expect("it can be read"));
    }
}
