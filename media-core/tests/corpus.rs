//! Replays `fuzz/corpus/codec_headers`: every input that was worth keeping goes through the same body again.
//!
//! `scripts/fuzz.sh codec_headers` finds new ones.

use std::{fs, path::Path, time::Instant};

#[test]
fn codec_headers_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/codec_headers");
    let inputs: Vec<_> = fs::read_dir(&folder).expect("the corpus is part of the project").collect();
    assert!((1..40).contains(&inputs.len()), "{} inputs: merge them before they are committed", inputs.len());
    for input in inputs {
        let path = input.expect("it can be listed").path();
        println!("{}", path.display());
        media_core::codec::fuzz::fuzz(Instant::now(), &fs::read(&path).expect("it can be read"));
    }
}
