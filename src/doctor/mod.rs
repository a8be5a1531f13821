//! `codecast doctor`: does what this configuration asks for work on this machine? Each line says how it is, and what to do.
//!
//! It binds what a server would bind; beside a running server of the same configuration it says so. Each part looks by
//! itself and judges by a pure function; here is the order, and the paper.

mod certificate;
mod finding;
mod machine;
mod media;
mod ports;
mod reach;

use std::path::{Path, PathBuf};

use self::finding::{Finding, Verdict, worst};
pub use self::reach::UNREACHED;
use crate::{
    cli,
    config::{Config, Layers},
};

/// What is examined, and how it is told.
pub struct Patient<'a> {
    pub config: &'a Config,
    pub layers: &'a Layers,
    pub file: Option<&'a Path>,
    pub data_dir: PathBuf,
    pub json: bool,
}

impl Patient<'_> {
    /// True when nothing is a fault.
    pub async fn examine(&self) -> bool {
        let mut findings = self.tell(vec![configuration(self.file, &self.layers.changed())]);
        findings.extend(self.tell(machine::look(self.config, &self.data_dir)));
        findings.extend(self.tell(reach::look(self.config).await));
        findings.extend(self.tell(certificate::look(self.config, &self.data_dir)));
        findings.extend(self.tell(media::look(self.config.transcode.program.as_deref())));
        let verdict = worst(&findings);
        if self.json {
            cli::print(&format!("{}\n", serde_json::json!({ "verdict": verdict, "findings": findings })));
        }
        verdict != Verdict::Fault
    }

    /// Lines as they come: some take a while.
    fn tell(&self, findings: Vec<Finding>) -> Vec<Finding> {
        if !self.json {
            findings.iter().for_each(|finding| cli::print(&finding.render()));
        }
        findings
    }
}

/// Which keys differ, by name alone: a value may be a secret.
fn configuration(file: Option<&Path>, changed: &[String]) -> Finding {
    let read = match file {
        Some(file) => format!("the configuration is {}", file.display()),
        None => "there is no configuration file: every key has its default, but for the environment".to_owned(),
    };
    match changed {
        [] => Finding::ok("configuration", format!("{read}; no key differs from its default")),
        changed => Finding::ok("configuration", format!("{read}; these differ from their defaults: {}", changed.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_told_without_their_values() {
        let mut layers = Layers::reference();
        let text = "[http]\naddress = \"0.0.0.0:8080\"\n[webrtc]\nice_servers = \"turn:a.example me secret\"\n[[stream]]\nname = \"a\"\n\
                    key = \"secret-secret-secret\"";
        layers.file(Path::new("c.toml"), text).unwrap();
        let told = configuration(Some(Path::new("c.toml")), &layers.changed()).text;
        assert!(told.ends_with("their defaults: webrtc.ice_servers (in c.toml line 4), 1 streams"), "{told}");
    }
}
