//! What a viewer is told over server-sent events (WHEP's core extensions): `active`, `inactive`, `layers`, and our
//! own `ended` with its reason, after which nothing follows.
//!
//! An event stream holds no queue: it compares what is true now with what it has said, so a slow reader misses what
//! has become untrue meanwhile, and nothing grows.

use std::sync::Arc;

use super::viewer::{End, Front, Viewer};

/// What the `Link` header offers.
pub const NAMES: &str = "active,inactive,layers,ended";
/// A comment, so that no proxy takes the stream for dead and a gone viewer is noticed.
pub const HEARTBEAT: &str = ": \n\n";

pub struct Events {
    viewer: Viewer,
    wanted: Wanted,
    active: bool,
    layers: Arc<str>,
    ended: bool,
}

/// The events that a viewer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(u8);

const KINDS: [&str; 4] = ["active", "inactive", "layers", "ended"];

impl Wanted {
    pub const ALL: Self = Self(0b1111);

    /// Names that we do not know never come.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let position = |name: &str| KINDS.iter().position(|kind| *kind == name);
        Self(names.into_iter().filter_map(position).fold(0, |bits, at| bits | 1 << at))
    }

    /// Of a JSON array of names.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let names: Vec<String> = serde_json::from_slice(body).ok()?;
        Some(Self::of(names.iter().map(String::as_str)))
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        KINDS.into_iter().filter(move |name| self.has(name))
    }

    fn has(self, name: &str) -> bool {
        KINDS.iter().position(|kind| *kind == name).is_some_and(|at| self.0 & 1 << at != 0)
    }
}

impl Events {
    pub fn new(viewer: Viewer, wanted: Wanted) -> Self {
        Self { viewer, wanted, active: false, layers: Arc::default(), ended: false }
    }

    /// What must be said now that was not said yet; it may be nothing. That nobody publishes is no news to who has just
    /// come, as the draft asks.
    pub fn tell(&mut self, front: &Front) -> String {
        let mut text = String::new();
        let active = !front.flowing.is_empty();
        if active != self.active {
            self.active = active;
            self.event(&mut text, if active { "active" } else { "inactive" }, "{}");
        }
        if front.layers != self.layers && !front.layers.is_empty() {
            self.layers = Arc::clone(&front.layers);
            self.event(&mut text, "layers", &front.layers);
        }
        if let Some(end) = self.viewer.end(front) {
            self.end(&mut text, end);
        }
        text
    }

    /// Nothing follows.
    pub fn is_over(&self) -> bool {
        self.ended
    }

    fn end(&mut self, text: &mut String, end: End) {
        if !std::mem::replace(&mut self.ended, true) {
            self.event(text, "ended", &format!("{{\"reason\":\"{}\"}}", end.as_str()));
        }
    }

    /// Data is one line, as the draft asks.
    fn event(&self, text: &mut String, name: &str, data: &str) {
        if self.wanted.has(name) {
            text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use media_core::TrackId;

    use super::*;
    use crate::whep::{broadcast::Tracks, viewer::Taken};

    fn live() -> Front {
        Front { flowing: Tracks::default().with(TrackId::VIDEO), ..Front::default() }
    }

    const VIEWER: Viewer = Viewer { video: Taken::Yes, audio: Taken::Yes };

    #[test]
    fn what_changed_is_told_once() {
        let mut events = Events::new(VIEWER, Wanted::ALL);
        assert_eq!(events.tell(&Front::default()), "", "no initial inactive");
        assert_eq!(events.tell(&live()), "event: active\ndata: {}\n\n");
        assert_eq!(events.tell(&live()), "");
        let layers = Front { layers: r#"{"layers":[]}"#.into(), ..live() };
        assert_eq!(events.tell(&layers), "event: layers\ndata: {\"layers\":[]}\n\n");
        assert_eq!(events.tell(&layers), "");
        assert_eq!(events.tell(&Front::default()), "event: inactive\ndata: {}\n\n");
        let ended = Front { ended: Some(End::Stream), ..Front::default() };
        assert_eq!(events.tell(&ended), "event: ended\ndata: {\"reason\":\"stream-ended\"}\n\n");
        assert!(events.is_over());
        assert_eq!(events.tell(&ended), "");
    }

    #[test]
    fn a_viewer_hears_what_it_asked_for() {
        let mut events = Events::new(VIEWER, Wanted::of(["ended", "viewercount"]));
        assert_eq!(events.tell(&live()), "");
        let refused = Front { refused: true, ..live() };
        assert_eq!(events.tell(&refused), "event: ended\ndata: {\"reason\":\"codec-changed\"}\n\n");
        assert_eq!(Wanted::of(KINDS), Wanted::ALL);
        assert_eq!(Wanted::ALL.names().collect::<Vec<_>>().join(","), NAMES);
    }
}
