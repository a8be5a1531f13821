//! What the doctor found: a verdict, a sentence, and what to do where it is not well.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It runs, and less well than it could.
    Warning,
    /// Something that is configured does not work.
    Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// What was looked at.
    pub about: &'static str,
    pub text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub fn ok(about: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, about, text: text.into(), advice: None }
    }

    pub fn warning(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, about, text: text.into(), advice: Some(advice.into()) }
    }

    pub fn fault(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fault, ..Self::warning(about, text, advice) }
    }

    /// One line.
    pub fn render(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Fault => "fault  ",
        };
        match &self.advice {
            Some(advice) => format!("{verdict} {}. {advice}\n", self.text),
            None => format!("{verdict} {}\n", self.text),
        }
    }
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_the_worst_counts() {
        let (ok, warning, fault) =
            (Finding::ok("x", "well"), Finding::warning("x", "so so", "Mend it"), Finding::fault("x", "ill", "Do"));
        assert_eq!(ok.render(), "ok      well\n");
        assert_eq!(warning.render(), "warning so so. Mend it\n");
        assert_eq!(fault.render(), "fault   ill. Do\n");
        assert_eq!(worst(&[]), Verdict::Ok);
        assert_eq!(worst(&[ok.clone(), warning.clone()]), Verdict::Warning);
        assert_eq!(worst(&[fault, warning, ok]), Verdict::Fault);
    }
}
