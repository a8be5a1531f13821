//! Embeds the built web pages: every file under `web/dist`, with its type, its tag and its gzip.
//!
//! Without `web/dist` the build succeeds too, and the pages say how to make them.

use std::{
    collections::hash_map::DefaultHasher,
    env,
    fmt::Write as _,
    fs,
    hash::Hasher,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

fn main() {
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("web/dist");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    // A missing folder counts as changed, so that the next build looks again.
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    collect(&dist, &mut files);
    files.sort();
    let mut code = String::from("&[\n");
    for (number, file) in files.iter().enumerate() {
        let path = file.strip_prefix(&dist).expect("it was found there").to_str().expect("web pages have plain names");
        entry(&mut code, number, path, file, &out);
    }
    code.push(']');
    fs::write(out.join("web.rs"), code).expect("cargo's folder is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

fn entry(code: &mut String, number: usize, path: &str, file: &Path, out: &Path) {
    let plain = fs::read(file).expect("a file that was just listed can be read");
    let mut hasher = DefaultHasher::new();
    hasher.write(&plain);
    let tag = hasher.finish();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let gzip = encoder.write_all(&plain).and_then(|()| encoder.finish()).expect("a Vec takes everything");
    // Pictures and fonts are compressed already: what gains less than a tenth is not worth two copies.
    let gzip = if gzip.len() < plain.len() / 10 * 9 {
        let place = out.join(format!("{number}.gz"));
        fs::write(&place, gzip).expect("cargo's folder is writable");
        format!("Some(include_bytes!({place:?}))")
    } else {
        "None".to_owned()
    };
    let file = file.to_str().expect("web pages have plain names");
    let kind = content_type(path);
    let _ = writeln!(
        code,
        "    Asset {{ path: {path:?}, content_type: {kind:?}, tag: \"{tag:016x}\", plain: include_bytes!({file:?}), gzip: {gzip} }},"
    );
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        Some("json" | "map" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
