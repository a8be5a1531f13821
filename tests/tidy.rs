//! Rules of the house that a machine can check, so that no reviewer has to.
//!
//! Each test walks the files as they lie in the work tree, collects what is wrong, and names file, line and reason.
//! The rules themselves, with their reasons, stand in docs/style.md and ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

// ---- what is forbidden, and where ----------------------------------------------------------------------------------

/// Files that may await, or touch a socket, a clock or a thread, wherever they lie.
const SHELLS: [&str; 13] = [
    "listener.rs",
    "steady.rs",
    "conn.rs",
    "server.rs",
    "udp.rs",
    "tcp.rs",
    "engine.rs",
    "inbox.rs",
    "front.rs",
    "lease.rs",
    "upstream.rs",
    "pipeline.rs",
    "main.rs",
];
/// Folders whose files are shells: the program itself, the tests, the benches and the fuzz targets.
const SHELL_FOLDERS: [&str; 4] = ["src", "tests", "benches", "fuzz"];
/// What a pure file never says.
const IMPURE: [&str; 9] = [
    "tokio",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::thread",
    "thread::sleep",
    "Instant::now",
    "SystemTime::now",
];

/// Words that name a drawer rather than its contents.
const DRAWERS: [&str; 5] = ["util", "utils", "helper", "helpers", "manager"];
/// Beginnings of a function's name that say nothing.
const EMPTY_VERBS: [&str; 3] = ["get_", "process_", "do_"];

/// A crate, and what it never depends on: a name, or a beginning followed by `*`.
const FLOORS: [(&str, &[&str]); 9] = [
    (
        "media-core",
        &["ingest", "packager", "edge", "transcode", "control", "transport", "link", "tokio*", "hyper*", "axum*", "gstreamer*"],
    ),
    ("transport", &["media-core", "ingest", "packager", "edge", "transcode", "control", "link"]),
    ("link", &["ingest", "packager", "edge", "transcode", "control", "transport"]),
    ("ingest", &["packager", "edge", "transcode", "control", "gstreamer*"]),
    ("packager", &["ingest", "edge", "transcode", "control", "gstreamer*"]),
    ("edge", &["ingest", "packager", "transcode", "control", "gstreamer*", "mp4-atom"]),
    ("transcode", &["ingest", "packager", "edge", "control"]),
    ("control", &["ingest", "packager", "edge", "transcode", "gstreamer*"]),
    ("codecast", &["gstreamer*"]),
];

/// Crates of which the lock holds one major version: two of them double a build and do not fit together.
const SINGLE: [&str; 4] = ["hyper", "rustls", "axum", "tower-http"];
/// Every crate that brings a crypto implementation for TLS. `ring` is the one we chose; see `EXCEPTIONS` for others.
const CRYPTO: [&str; 8] =
    ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls", "boring", "mbedtls", "wolfcrypt-sys"];

/// What the lock may hold against these rules.
struct Exception {
    /// The crates that are excused.
    packages: &'static [&'static str],
    /// They must come through these alone, and these must be dev-dependencies alone.
    through: &'static [&'static str],
    /// Crates that the program has too, with fewer features: the lock shows those of both.
    shared: &'static [&'static str],
    #[allow(dead_code, reason = "written for the reader")]
    reason: &'static str,
}

const EXCEPTIONS: [Exception; 1] = [Exception {
    packages: &["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"],
    through: &["rtmp", "bytesio", "xflv"],
    // The lock names what `instant-acme` could use, hyper-rustls, which the program does not have, and its ways to webpki.
    shared: &["rustls", "rustls-webpki"],
    reason: "`rtmp` is the independent RTMP publisher of ingest's tests. Its event hub posts webhooks by reqwest, which brings OpenSSL \
             and aws-lc and lets nobody choose. Tests only: the program is free of them, as `the_program_has_one_crypto_provider` shows.",
}];

// ---- the rules -----------------------------------------------------------------------------------------------------

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let mut wrong = Complaints::default();
    for file in rust_files() {
        if !file.text.starts_with("//!") {
            wrong.add(&file, 1, "does not open with `//!`");
        }
    }
    wrong.none();
}

#[test]
fn pure_files_touch_nothing() {
    let mut wrong = Complaints::default();
    for file in rust_files().filter(|file| !is_shell(&file.path)) {
        for (number, line) in production_lines(&file.text) {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                wrong.add(&file, number, format_args!("`{word}` in a pure file: the core decides, the shell does"));
            }
        }
    }
    wrong.none();
}

#[test]
fn names_say_something() {
    let mut wrong = Complaints::default();
    for file in text_files() {
        let stem = file.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.split(['_', '-', '.']).any(|word| DRAWERS.contains(&word)) {
            wrong.add(&file, 1, "is named after a drawer, not after what it holds");
        }
    }
    for file in rust_files() {
        for (number, line) in production_lines(&file.text) {
            let Some((_, name)) = line.split_once("fn ") else { continue };
            if EMPTY_VERBS.iter().any(|verb| name.starts_with(verb)) {
                wrong.add(&file, number, "a verb that says nothing (docs/style.md, Verbs)");
            }
        }
    }
    wrong.none();
}

#[test]
fn floors_hold() {
    let mut wrong = Complaints::default();
    for manifest in manifests() {
        let name = manifest.package_name();
        let Some((_, forbidden)) = FLOORS.iter().find(|(floor, _)| *floor == name) else { continue };
        for dependency in manifest.dependencies() {
            let hit = forbidden.iter().any(|rule| match rule.strip_suffix('*') {
                Some(beginning) => dependency.name.starts_with(beginning),
                None => dependency.name == *rule,
            });
            // Tests of the pure model may run in a runtime; a sibling is no more welcome in tests than elsewhere.
            let in_tests = dependency.kind == Kind::Dev && dependency.name.starts_with("tokio");
            if hit && !in_tests {
                wrong.add(&manifest.0, dependency.line, format_args!("{name} does not depend on {}", dependency.name));
            }
        }
    }
    wrong.none();
}

#[test]
fn every_crate_is_a_member_and_inherits_the_lints() {
    let mut wrong = Complaints::default();
    let root = manifest_at("Cargo.toml");
    let members = root.0.text.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    for manifest in manifests() {
        let folder = manifest.0.path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let folder = if folder.is_empty() { "." } else { &folder };
        if !members.contains(&format!("\"{folder}\"")) {
            wrong.add(&manifest.0, 1, "is not a member of the workspace");
        }
        if !manifest.section("lints").any(|(_, line)| line == "workspace = true") {
            wrong.add(&manifest.0, 1, "lacks `[lints] workspace = true`");
        }
    }
    wrong.none();
}

#[test]
fn the_lock_holds_one_of_each() {
    let lock = Lock::read();
    let mut wrong = Vec::new();
    for name in SINGLE {
        let majors: BTreeSet<_> = lock.versions(name).map(major).collect();
        if majors.len() > 1 && !excused(&lock, name) {
            wrong.push(format!("Cargo.lock: {name} in the majors {majors:?}"));
        }
    }
    for name in CRYPTO.iter().filter(|name| lock.versions(name).next().is_some() && !excused(&lock, name)) {
        wrong.push(format!("Cargo.lock: {name}, a second crypto provider beside ring"));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn exceptions_are_still_needed() {
    let lock = Lock::read();
    for exception in &EXCEPTIONS {
        let present = exception.through.iter().any(|name| lock.versions(name).next().is_some());
        let unneeded: Vec<_> = exception.packages.iter().filter(|name| lock.versions(name).next().is_none()).collect();
        assert!(!present || unneeded.is_empty(), "no longer in the lock, take them out of EXCEPTIONS: {unneeded:?}");
    }
}

/// The lock also serves the tests; this asks cargo what is linked into `codecast` itself.
#[test]
fn the_program_has_one_crypto_provider() {
    let tree = Command::new(env!("CARGO"))
        .args("tree --offline --locked --package codecast --edges normal --prefix none --format {p}".split(' '))
        .current_dir(root())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("cargo writes UTF-8");
    let linked: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains("media-core"), "an empty tree would prove nothing:\n{tree}");
    let dev_only = EXCEPTIONS.iter().flat_map(|exception| exception.through).copied();
    let wrong: Vec<_> = CRYPTO.into_iter().chain(dev_only).filter(|name| linked.contains(name)).collect();
    assert!(wrong.is_empty(), "linked into codecast: {wrong:?}");
}

#[test]
fn nothing_names_the_place_where_it_was_made() {
    // Put together here, so that this file does not hold what it forbids.
    let places = ["work", "farm", "root"].map(|folder| format!("/{folder}/"));
    let unfinished = ["TO", "FIX"].map(|start| start.to_owned() + if start == "TO" { "DO" } else { "ME" });
    let download = ["\"resolved\": ", "\"http"].concat();
    let mut wrong = Complaints::default();
    for file in text_files() {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(*place)) {
                wrong.add(&file, number + 1, format_args!("names a folder of some machine: {place}"));
            }
            if line.contains(&download) {
                wrong.add(&file, number + 1, "names a registry's host: see .npmrc");
            }
            if is_code(&file.path) && unfinished.iter().any(|word| line.contains(word)) {
                wrong.add(&file, number + 1, "is unfinished");
            }
        }
    }
    wrong.none();
}

// ---- files ---------------------------------------------------------------------------------------------------------

struct File {
    /// From the root of the project.
    path: PathBuf,
    text: String,
}

#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn add(&mut self, file: &File, line: usize, what: impl Display) {
        self.0.push(format!("{}:{line}: {what}", file.path.display()));
    }

    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project: what is not built, installed, or the server's own state.
fn text_files() -> impl Iterator<Item = File> {
    let mut paths = Vec::new();
    collect(root(), &mut paths);
    paths.sort();
    paths.into_iter().filter_map(|path| {
        let text = String::from_utf8(fs::read(&path).ok()?).ok()?;
        Some(File { path: path.strip_prefix(root()).expect("it was found there").to_owned(), text })
    })
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    const SKIPPED: [&str; 8] = [".git", ".tools", "target", "node_modules", "dist", "codecast-data", "corpus", "__pycache__"];
    for entry in fs::read_dir(folder).expect("the project can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            collect(&path, paths);
        } else if kind.is_file() && path.extension().is_none_or(|end| end != "log") {
            paths.push(path);
        }
    }
}

fn rust_files() -> impl Iterator<Item = File> {
    text_files().filter(|file| file.path.extension().is_some_and(|end| end == "rs"))
}

fn is_code(path: &Path) -> bool {
    path.extension()
        .and_then(|end| end.to_str())
        .is_some_and(|end| ["rs", "ts", "mjs", "js", "py", "sh", "html", "css"].contains(&end))
}

fn is_shell(path: &Path) -> bool {
    let first = path.components().next().and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let in_tests = path.parent().is_some_and(|folder| folder.components().any(|part| part.as_os_str() == "tests"));
    SHELL_FOLDERS.contains(&first)
        || SHELLS.contains(&name)
        || name == "build.rs"
        || in_tests
        || name.ends_with("tests.rs")
        || name == "fuzz.rs"
}

/// Numbered lines without comments, up to the tests at the bottom of a file.
fn production_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_start())).peekable();
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            if line.starts_with("#[cfg(test)]") {
                let (_, item) = lines.peek()?;
                match item.trim_start_matches("pub(super) ").starts_with("mod ") {
                    true if item.ends_with('{') => return None,
                    true => _ = lines.next(),
                    false => (),
                }
            } else if !line.starts_with("//") {
                return Some((number, line));
            }
        }
    })
}

// ---- Cargo.toml and Cargo.lock, as far as the rules read them --------------------------------------------------------

struct Manifest(File);

#[derive(PartialEq)]
enum Kind {
    Normal,
    Dev,
}

struct Dependency {
    name: String,
    kind: Kind,
    line: usize,
}

/// Workspaces of their own: fuzz targets need a toolchain of their own; the tests' GStreamer clients bring crates that the
/// server has nothing to do with.
const OTHER_WORKSPACES: [&str; 2] = ["fuzz", "tests/tools/gst-webrtchttp"];

fn manifests() -> impl Iterator<Item = Manifest> {
    let ours = |file: &File| !OTHER_WORKSPACES.iter().any(|folder| file.path.starts_with(folder));
    text_files().filter(move |file| file.path.ends_with("Cargo.toml") && ours(file)).map(Manifest)
}

fn manifest_at(path: &str) -> Manifest {
    Manifest(File { path: path.into(), text: fs::read_to_string(root().join(path)).expect("it lies in the project") })
}

impl Manifest {
    /// Each line with the header it stands under, without comments and empty lines.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        let mut header = "";
        self.0.text.lines().enumerate().filter_map(move |(at, line)| {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                header = name;
                return Some((at + 1, header, ""));
            }
            (!line.is_empty() && !line.starts_with('#')).then_some((at + 1, header, line))
        })
    }

    fn section(&self, name: &str) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(move |(_, header, line)| *header == name && !line.is_empty()).map(|(at, _, line)| (at, line))
    }

    fn package_name(&self) -> String {
        let name = self.section("package").find_map(|(_, line)| line.strip_prefix("name = ")).unwrap_or_default();
        name.trim_matches('"').to_owned()
    }

    /// `[dependencies]`, its kinds, and both ways to write them: `name.workspace = true`, and a table of its own.
    fn dependencies(&self) -> Vec<Dependency> {
        let mut found = Vec::new();
        for (line, header, text) in self.lines().filter(|(_, header, _)| !header.starts_with("workspace")) {
            let Some((before, table)) = header.split_once("dependencies") else { continue };
            let kind = if before.ends_with("dev-") { Kind::Dev } else { Kind::Normal };
            let name = match (text, table.strip_prefix('.')) {
                ("", Some(own_table)) => own_table,
                ("", None) => continue,
                (_, Some(_)) => continue,
                (text, None) => text.split(['.', ' ', '=']).next().unwrap_or_default(),
            };
            found.push(Dependency { name: name.to_owned(), kind, line });
        }
        found
    }
}

/// Cargo.lock as a graph of names: for a package in several versions, of all of them together.
struct Lock(BTreeMap<String, Package>);

#[derive(Default)]
struct Package {
    versions: Vec<String>,
    needs: BTreeSet<String>,
}

impl Lock {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is part of the project");
        let mut packages = BTreeMap::<String, Package>::new();
        for block in text.split("[[package]]").skip(1) {
            let value =
                |key: &str| block.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim_matches('"').to_owned());
            let package = packages.entry(value("name = ").expect("a package has a name")).or_default();
            package.versions.extend(value("version = "));
            let listed = block.lines().filter_map(|line| line.strip_prefix(" \""));
            package.needs.extend(listed.filter_map(|line| Some(line.split([' ', '"']).next()?.to_owned())));
        }
        Self(packages)
    }

    fn versions(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flat_map(|package| package.versions.iter().map(String::as_str))
    }

    /// Whether a member of the workspace reaches a package on a way that avoids the given ones.
    fn reaches(&self, wanted: &str, avoiding: &[&str]) -> bool {
        let mut open: Vec<String> = manifests().map(|manifest| manifest.package_name()).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if name == wanted {
                return true;
            }
            if !avoiding.contains(&name.as_str()) && seen.insert(name.clone()) {
                open.extend(self.0.get(&name).into_iter().flat_map(|package| package.needs.iter().cloned()));
            }
        }
        false
    }
}

/// What semantic versioning calls a major: 1 of 1.2.3, 0.6 of 0.6.11.
fn major(version: &str) -> String {
    let numbers = version.split('.').take(if version.starts_with("0.") { 2 } else { 1 });
    numbers.collect::<Vec<_>>().join(".")
}

/// Whether an exception names this package, and the package really comes in on the excepted way alone.
fn excused(lock: &Lock, package: &str) -> bool {
    let named = EXCEPTIONS.iter().filter(|exception| exception.packages.contains(&package));
    named.into_iter().any(|exception| {
        let dev_only = manifests().all(|manifest| {
            let normal = manifest.dependencies().into_iter().filter(|dependency| dependency.kind == Kind::Normal);
            !normal.into_iter().any(|dependency| exception.through.contains(&dependency.name.as_str()))
        });
        dev_only && !lock.reaches(package, &[exception.through, exception.shared].concat())
    })
}
