//! When a certificate is asked for: pure, and patient. A directory counts what fails, and shuts out who asks too often.

use std::time::{Duration, SystemTime};

use crate::tls::leaf::Validity;

/// Spread before two thirds of a lifetime, so that servers that began together do not come back together.
const SPREAD: f64 = 0.05;
/// How a renewal window is asked for again, whatever the directory says (RFC 9773 4.3.2).
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];
/// A network that failed costs the directory nothing.
const UNREACHABLE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(3600)];
/// Let's Encrypt allows five failures an hour for each name: 0, 2, 6, 14 and 30 minutes are that.
const REFUSED: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(6 * 3600)];
/// Certificates that were all revoked at once are replaced within so long.
const RENEWALS_APART: Duration = Duration::from_secs(3600);
/// As long as a directory may bid us to wait; the longest that is known is a week.
pub const WAIT_MAX: Duration = Duration::from_secs(8 * 24 * 3600);
/// A process that is started again and again does not ask each time.
const RESTART: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The directory has not been heard, or not to the end.
    Unreachable,
    /// It was heard, and there is no certificate.
    Refused,
}

/// At two thirds of the lifetime, or a little before. `random` is in 0..1.
pub fn due(validity: Validity, random: f64) -> SystemTime {
    validity.from + validity.length().mul_f64(2.0 / 3.0 - SPREAD * random)
}

/// A moment within the window that the directory suggests (RFC 9773 4.2), but no later than we would go by ourselves
/// with a margin: what it says may be wrong.
pub fn within(window: [SystemTime; 2], validity: Validity, random: f64) -> SystemTime {
    let [start, end] = window;
    let at = start + end.duration_since(start).unwrap_or_default().mul_f64(random);
    at.min(validity.from + validity.length().mul_f64(0.9))
}

/// When the window is asked for again.
pub fn ask_again(told: Duration) -> Duration {
    told.clamp(ASK_AGAIN[0], ASK_AGAIN[1])
}

/// How long a certificate that has just come is left alone at least. A directory that always suggests the past would be
/// asked without end, and so would one whose certificates are never valid by a clock that is wrong.
pub fn rest(validity: Validity, now: SystemTime) -> Duration {
    let length = validity.length();
    if validity.holds(now) { (length / 2).min(RENEWALS_APART) } else { length.mul_f64(2.0 / 3.0).min(WAIT_MAX) }
}

/// How long to wait after so many failures in a row, or longer where the directory said so.
pub fn back_off(failure: Failure, failures: u32, told: Option<Duration>, random: f64) -> Duration {
    let [first, most] = match failure {
        Failure::Unreachable => UNREACHABLE,
        Failure::Refused => REFUSED,
    };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(most);
    let spread = doubled.mul_f64(1.0 + 0.2 * random);
    spread.max(told.unwrap_or_default().min(WAIT_MAX))
}

/// How long a new process waits, whose predecessor failed so long ago and was bidden to wait until then.
pub fn after_restart(failed: SystemTime, not_before: SystemTime, now: SystemTime) -> Duration {
    // A clock that was set back must not make it wait for ever.
    let since = now.duration_since(failed).unwrap_or(RESTART);
    let told = not_before.duration_since(now).unwrap_or_default().min(WAIT_MAX);
    RESTART.saturating_sub(since).max(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn day(n: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * n
    }

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds() {
        let validity = Validity { from: day(100), until: day(190) };
        assert_eq!(due(validity, 0.0), day(160));
        assert!(due(validity, 1.0) < day(160) && due(validity, 1.0) > day(155));
        let check = |window: [u32; 2], random, expected| {
            assert_eq!(within(window.map(day), validity, random), day(expected), "{window:?}");
        };
        check([150, 160], 0.0, 150);
        check([150, 160], 0.5, 155);
        check([1, 2], 1.0, 2); // revoked: at once
        check([180, 185], 1.0, 181); // a window that is too late
        check([900, 800], 1.0, 181); // or none
    }

    #[test]
    fn failures_are_spread_out() {
        let check = |failure, failures, told: Option<u64>, expected: u64| {
            assert_eq!(back_off(failure, failures, told.map(secs), 0.0), secs(expected), "{failure:?} {failures}");
        };
        check(Failure::Unreachable, 1, None, 5);
        check(Failure::Unreachable, 2, None, 10);
        check(Failure::Unreachable, 99, None, 3600);
        check(Failure::Refused, 1, None, 120);
        check(Failure::Refused, 3, None, 480);
        check(Failure::Refused, u32::MAX, None, 6 * 3600);
        check(Failure::Refused, 1, Some(90_000), 90_000);
        check(Failure::Refused, 9, Some(1), 6 * 3600);
        check(Failure::Refused, 1, Some(u64::MAX), WAIT_MAX.as_secs());
        assert_eq!(back_off(Failure::Refused, 1, None, 1.0), secs(144));
    }

    #[test]
    fn five_failures_are_the_most_in_an_hour() {
        let mut at = Duration::ZERO;
        let hours: Vec<_> = (1..30)
            .map(|failures| {
                let now = at;
                at += back_off(Failure::Refused, failures, None, 0.0);
                now
            })
            .collect();
        for first in &hours {
            assert!(hours.iter().filter(|at| (*first..*first + secs(3600)).contains(*at)).count() <= 5);
        }
    }

    #[test]
    fn a_new_process_remembers() {
        let now = day(100);
        assert_eq!(after_restart(now - secs(20), day(0), now), secs(40));
        assert_eq!(after_restart(now - secs(90), day(0), now), Duration::ZERO);
        assert_eq!(after_restart(now - secs(90), now + secs(500), now), secs(500));
        assert_eq!(after_restart(now + DAY, day(0), now), Duration::ZERO, "the clock was set back");
        assert_eq!(after_restart(now, day(900), now), WAIT_MAX);
    }

    #[test]
    fn a_wrong_clock_does_not_ask_without_end() {
        let validity = Validity { from: day(100), until: day(190) };
        assert_eq!(rest(validity, day(120)), RENEWALS_APART);
        assert_eq!(rest(Validity { from: day(1), until: day(1) + secs(30) }, day(1)), secs(15));
        assert_eq!(rest(validity, day(900)), WAIT_MAX);
        assert_eq!(rest(Validity { from: day(1), until: day(1) + secs(30) }, day(0)), secs(20));
        assert_eq!(ask_again(secs(1)), secs(3600));
        assert_eq!(ask_again(secs(21_600)), secs(21_600));
    }
}
