//! What the transcoder can do here: each element of GStreamer is tried by a process of its own, which may crash or hang.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::finding::Finding;

const ABOUT: &str = "media";
/// The first start reads every plugin, which takes a slow disk its time.
const PROBE_TIME: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(10);
/// The list of what can be tried, and an outcome, have some hundred bytes a line.
const TOLD_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Deserialize)]
struct Probe {
    element: String,
    purpose: String,
    need: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Need {
    Core,
    Codec,
    Spare,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    outcome: String,
    problem: Option<String>,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tried {
    Works,
    Missing,
    Fails(String),
}

pub fn look(configured: Option<&Path>) -> Vec<Finding> {
    let Some(program) = transcode::find_program(configured) else {
        return vec![Finding::fault(
            ABOUT,
            "codecast-transcode is neither beside this program nor in PATH (transcode.program)",
            "Install it there: until then streams with B-frames cannot be watched by WebRTC, RTMP's sound is not heard there, and WHIP's \
             sound is Opus in HLS",
        )];
    };
    let shown = program.display();
    let probes: Vec<Probe> = match told(&program, &[]) {
        Ok(text) => text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        Err(problem) => {
            return vec![Finding::fault(
                ABOUT,
                format!("the transcoder {shown} cannot be started: {problem}"),
                "Install it anew",
            )];
        }
    };
    let mut findings = vec![Finding::ok(ABOUT, format!("the transcoder is {shown}"))];
    let tried: Vec<_> = probes.iter().map(|probe| (probe, attempt(&program, &probe.element))).collect();
    findings.extend(tried.iter().filter_map(|(probe, tried)| verdict(probe, tried)));
    findings.extend(without(&tried));
    findings
}

fn attempt(program: &Path, element: &str) -> Tried {
    let text = match told(program, &[element]) {
        Ok(text) => text,
        Err(problem) => return Tried::Fails(problem),
    };
    match text.lines().rev().find_map(|line| serde_json::from_str::<Outcome>(line).ok()) {
        Some(Outcome { outcome, .. }) if outcome == "works" => Tried::Works,
        Some(Outcome { outcome, .. }) if outcome == "missing" => Tried::Missing,
        Some(Outcome { problem, .. }) => Tried::Fails(problem.unwrap_or_else(|| "it does not say why".to_owned())),
        None => Tried::Fails("the test ended without a word".to_owned()),
    }
}

/// What is not there and not needed is told in one line for all.
fn verdict(probe: &Probe, tried: &Tried) -> Option<Finding> {
    let what = format!("{} ({})", probe.element, probe.purpose);
    Some(match (tried, probe.need) {
        (Tried::Works, _) => Finding::ok(ABOUT, format!("{what} works")),
        (Tried::Missing, Need::Codec | Need::Spare) => return None,
        (Tried::Missing, Need::Core) => Finding::fault(
            ABOUT,
            format!("{what} is not there"),
            "Install GStreamer's plugins: gstreamer1.0-plugins-base, -good, -bad, -ugly and gstreamer1.0-libav",
        ),
        (Tried::Fails(problem), Need::Core) => Finding::fault(
            ABOUT,
            format!("{what} does not work: {problem}"),
            "Install GStreamer's plugins anew, all of one version",
        ),
        (Tried::Fails(problem), _) => Finding::warning(
            ABOUT,
            format!("{what} is there and does not work: {problem}"),
            "Nothing needs it as long as another of its kind works. Is the driver loaded, and may this user open the device?",
        ),
    })
}

/// Kinds of which there is none, and what could be there.
fn without(tried: &[(&Probe, Tried)]) -> Vec<Finding> {
    let mut purposes: Vec<&str> =
        tried.iter().filter(|(probe, _)| probe.need == Need::Codec).map(|(probe, _)| probe.purpose.as_str()).collect();
    purposes.dedup();
    let works = |purpose: &str| tried.iter().any(|(probe, tried)| probe.purpose == purpose && *tried == Tried::Works);
    let mut findings: Vec<_> = purposes
        .into_iter()
        .filter(|purpose| !works(purpose))
        .map(|purpose| {
            let text = format!("nothing {purpose}: such a stream is not watched by WebRTC");
            Finding::warning(ABOUT, text, "Install gstreamer1.0-libav and gstreamer1.0-plugins-bad, or send H.264")
        })
        .collect();
    let absent: Vec<_> = tried
        .iter()
        .filter(|(probe, tried)| probe.need == Need::Spare && *tried == Tried::Missing)
        .map(|(probe, _)| probe.element.as_str())
        .collect();
    if !absent.is_empty() {
        findings.push(Finding::ok(ABOUT, format!("not there, and not needed: {}", absent.join(" "))));
    }
    findings
}

/// What the program says in its time.
fn told(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--self-test").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let stdout = child.stdout.take();
    // A reader of its own: what hangs says nothing, and holds the pipe.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        // What is no text is no outcome, and told as that.
        let _ = stdout.map(|stdout| stdout.take(TOLD_BYTES_MAX).read_to_string(&mut text));
        text
    });
    let ended = wait(&mut child, PROBE_TIME);
    let text = reader.join().unwrap_or_default();
    match ended {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(format!("it ended by {status}")),
        None => Err(format!("it hangs: nothing within {PROBE_TIME:?}")),
    }
}

/// `None`: it took too long, and was ended.
fn wait(child: &mut Child, most: Duration) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < most {
        match child.try_wait() {
            Ok(None) => thread::sleep(GLANCE),
            Ok(ended) => return ended,
            Err(_) => break,
        }
    }
    // It may have ended this moment.
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn probe(element: &str, need: Need) -> Probe {
        Probe { element: element.to_owned(), purpose: "decodes AV1".to_owned(), need }
    }

    #[test]
    fn what_is_needed_must_work() {
        let check = |need, tried: Tried, expected: Option<Verdict>| {
            assert_eq!(verdict(&probe("x", need), &tried).map(|finding| finding.verdict), expected, "{need:?} {tried:?}");
        };
        let fails = || Tried::Fails("no device".into());
        check(Need::Core, Tried::Works, Some(Verdict::Ok));
        check(Need::Core, Tried::Missing, Some(Verdict::Fault));
        check(Need::Core, fails(), Some(Verdict::Fault));
        check(Need::Codec, Tried::Missing, None);
        check(Need::Spare, Tried::Missing, None);
        check(Need::Spare, fails(), Some(Verdict::Warning));
    }

    #[test]
    fn one_of_a_kind_is_enough() {
        let (a, b, c) = (probe("dav1ddec", Need::Codec), probe("av1dec", Need::Codec), probe("nvh264enc", Need::Spare));
        let found = without(&[(&a, Tried::Missing), (&b, Tried::Works), (&c, Tried::Missing)]);
        assert_eq!(found.iter().map(Finding::render).collect::<String>(), "ok      not there, and not needed: nvh264enc\n");
        let found = without(&[(&a, Tried::Missing), (&b, Tried::Fails("x".into()))]);
        assert_eq!(found.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Verdict::Warning]);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut hangs = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(wait(&mut hangs, Duration::from_millis(50)), None);
        assert!(hangs.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_program_that_fails_is_a_sentence() {
        assert!(told(Path::new("/nowhere/at/all"), &[]).is_err());
        assert!(told(Path::new("/bin/false"), &[]).unwrap_err().contains("exit status: 1"));
        assert_eq!(attempt(Path::new("/bin/true"), "x"), Tried::Fails("the test ended without a word".into()));
    }
}
