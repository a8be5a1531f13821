//! One viewer: what its session takes, which layer it wants, and when its session can serve it no longer.

use std::sync::Arc;

use media_core::TrackId;

use super::{broadcast::Tracks, rungs::Candidate};

/// What a broadcast shows to its viewers beside media.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// Tracks that flow; none while no publisher sends.
    pub flowing: Tracks,
    /// Codings of the picture among which a viewer may choose.
    pub pictures: Tracks,
    /// Those of them that are no layers: nobody is given one who did not choose it.
    pub apart: Tracks,
    /// Pictures that a viewer is given as its way carries them, best first.
    pub candidates: Arc<[Candidate]>,
    /// The layers document; empty until there is something to choose from.
    pub layers: Arc<str>,
    /// The picture would have to be made, and cannot be.
    pub refused: bool,
    pub ended: Option<End>,
}

/// Why a session ends though its peer is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No publisher will continue the stream.
    Stream,
    /// What is sent now is not what was negotiated: a new offer would be answered otherwise.
    Codec,
    /// The server is shutting down.
    Drain,
}

impl End {
    /// As the `ended` event says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream-ended",
            Self::Codec => "codec-changed",
            Self::Drain => "server-stopping",
        }
    }
}

/// What a viewer asked for, and what of it was there when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewer {
    pub video: Taken,
    pub audio: Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is sent when it flows.
    Yes,
    /// The viewer would take it, and the stream had none.
    Missing,
    /// The viewer does not want it.
    No,
}

impl Taken {
    pub fn of(offered: bool, accepted: bool) -> Self {
        match (offered, accepted) {
            (_, true) => Self::Yes,
            (true, false) => Self::Missing,
            (false, false) => Self::No,
        }
    }
}

impl Viewer {
    /// Why this viewer has to make a new offer, or none any more.
    pub fn end(self, front: &Front) -> Option<End> {
        let appeared = |taken, track| taken == Taken::Missing && front.flowing.has(track);
        let misfit = appeared(self.video, TrackId::VIDEO)
            || appeared(self.audio, TrackId::AUDIO)
            || (front.refused && self.video == Taken::Yes);
        front.ended.or(misfit.then_some(End::Codec))
    }

    /// Whether what it watches flows: the picture, or the sound where it takes no picture.
    pub fn is_served(self, front: &Front) -> bool {
        match (self.video, self.audio) {
            (Taken::Yes, _) => front.flowing.has(TrackId::VIDEO) && !front.refused,
            (_, Taken::Yes) => front.flowing.has(TrackId::AUDIO),
            _ => false,
        }
    }

    /// Why the session is to be closed. A viewer who could have more than it has is told so, and keeps what it has: not
    /// every player hears events.
    pub fn closes(self, front: &Front) -> Option<End> {
        self.end(front).filter(|end| *end != End::Codec || !self.is_served(front))
    }
}

/// The picture that is shown to who wants `wanted`: while that one is not sent, the largest layer that is.
pub fn shown(wanted: TrackId, front: &Front) -> TrackId {
    let layers = (0..TrackId::LAYERS_MAX).filter_map(TrackId::layer);
    let ours = std::iter::once(TrackId::VIDEO).chain(layers).filter(|track| !front.apart.has(*track));
    let mut choices = std::iter::once(wanted).chain(ours);
    choices.find(|track| front.pictures.has(*track)).unwrap_or(TrackId::VIDEO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(flowing: &[TrackId]) -> Front {
        Front { flowing: flowing.iter().copied().fold(Tracks::default(), Tracks::with), ..Front::default() }
    }

    const BOTH: Viewer = Viewer { video: Taken::Yes, audio: Taken::Yes };

    #[test]
    fn a_session_goes_on_while_what_flows_fits() {
        let check = |viewer: Viewer, front: Front, end| assert_eq!(viewer.end(&front), end, "{viewer:?} {front:?}");
        let silent = Viewer { audio: Taken::Missing, ..BOTH };
        let deaf = Viewer { audio: Taken::No, ..BOTH };
        let both = [TrackId::VIDEO, TrackId::AUDIO];
        check(BOTH, front(&[]), None);
        check(BOTH, front(&both), None);
        check(silent, front(&[TrackId::VIDEO]), None);
        check(silent, front(&both), Some(End::Codec));
        check(deaf, front(&both), None);
        check(Viewer { video: Taken::Missing, ..BOTH }, front(&both), Some(End::Codec));
        check(BOTH, Front { refused: true, ..front(&both) }, Some(End::Codec));
        check(Viewer { video: Taken::No, ..BOTH }, Front { refused: true, ..front(&both) }, None);
        check(BOTH, Front { ended: Some(End::Stream), ..front(&[]) }, Some(End::Stream));
    }

    #[test]
    fn a_session_is_closed_when_it_serves_nobody() {
        let check = |viewer: Viewer, front: Front, end| assert_eq!(viewer.closes(&front), end, "{viewer:?} {front:?}");
        let both = [TrackId::VIDEO, TrackId::AUDIO];
        let silent = Viewer { audio: Taken::Missing, ..BOTH };
        check(silent, front(&both), None);
        check(silent, Front { ended: Some(End::Stream), ..front(&both) }, Some(End::Stream));
        check(BOTH, Front { refused: true, ..front(&both) }, Some(End::Codec));
        let blind = Viewer { video: Taken::Missing, ..BOTH };
        check(blind, front(&[TrackId::VIDEO]), Some(End::Codec));
    }

    #[test]
    fn a_layer_that_is_not_sent_is_replaced_by_the_largest_that_is() {
        let layer = |number| TrackId::layer(number).unwrap();
        let sent = |tracks: &[TrackId]| Front {
            pictures: tracks.iter().copied().fold(Tracks::default(), Tracks::with),
            ..Front::default()
        };
        assert_eq!(shown(layer(0), &sent(&[TrackId::VIDEO, layer(0)])), layer(0));
        assert_eq!(shown(layer(0), &sent(&[TrackId::VIDEO, layer(1)])), TrackId::VIDEO);
        assert_eq!(shown(TrackId::VIDEO, &sent(&[layer(1), layer(0)])), layer(0));
        assert_eq!(shown(layer(1), &sent(&[layer(1), layer(0)])), layer(1));
        assert_eq!(shown(layer(0), &Front::default()), TrackId::VIDEO);
        let camera = Front { apart: Tracks::default().with(layer(0)), ..sent(&[layer(0), layer(1)]) };
        assert_eq!(shown(TrackId::VIDEO, &camera), layer(1), "what is apart is nobody's layer");
        assert_eq!(shown(layer(0), &camera), layer(0), "but may be chosen");
        let alone = Front { apart: Tracks::default().with(layer(0)), ..sent(&[layer(0)]) };
        assert_eq!(shown(TrackId::VIDEO, &alone), TrackId::VIDEO);
    }
}
