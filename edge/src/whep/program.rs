//! What a stream has for viewers over WebRTC, as far as it is known when one comes.

use std::sync::Arc;

use media_core::{
    Parameters, TrackId, TrackKind,
    codec::h264::Order,
    stream::{Making, Present},
};

#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub video: bool,
    pub audio: bool,
    /// Of the picture that will be sent; `None` when the transcoder will choose, or nothing has come yet.
    pub profile_level_id: Option<[u8; 3]>,
}

/// It has something, and nothing of it can be sent. The sentence says what is missing here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(Arc<str>);

impl Program {
    /// `video` and `opus` tell whether the transcoder can make them. A picture that would have to be made and cannot be
    /// is a refusal: sound alone would look like a fault. A viewer may come before anything is known of the stream, and
    /// is then promised both.
    pub fn of(present: &Present, video: &Making, opus: &Making) -> Result<Self, Unavailable> {
        let (has_video, has_audio) = (present.has(TrackKind::Video), present.has(TrackKind::Audio));
        if !has_video && !has_audio {
            return Ok(Self { video: true, audio: true, profile_level_id: None });
        }
        if let Making::Unavailable(reason) = video
            && has_video
            && is_to_be_made(present)
        {
            return Err(Unavailable(Arc::clone(reason)));
        }
        let aac = matches!(parameters(present, TrackId::AUDIO), Some(Parameters::Aac(_)));
        if let Making::Unavailable(reason) = opus
            && aac
        {
            return if has_video { Ok(Self::new(present, true, false)) } else { Err(Unavailable(Arc::clone(reason))) };
        }
        Ok(Self::new(present, has_video, has_audio))
    }

    fn new(present: &Present, video: bool, audio: bool) -> Self {
        let profile_level_id = match parameters(present, TrackId::VIDEO) {
            Some(Parameters::H264(parameters)) if !is_to_be_made(present) => Some(parameters.profile_level),
            _ => None,
        };
        Self { video, audio, profile_level_id }
    }
}

/// Whether the picture cannot be sent as the publisher sends it: every viewer is promised H.264, in the order in which it
/// is shown.
pub fn is_to_be_made(present: &Present) -> bool {
    let other_codec = parameters(present, TrackId::VIDEO).is_some_and(|known| !matches!(known, Parameters::H264(_)));
    other_codec || present.order == Order::Reordered
}

fn parameters(present: &Present, track: TrackId) -> Option<&Parameters> {
    present.track(track).map(|track| &track.parameters)
}

#[cfg(test)]
mod tests {
    use media_core::Announcement;

    use super::*;
    use crate::whep::tests::{Script, av1_track};

    #[test]
    fn a_viewer_is_promised_what_can_be_sent() {
        let script = Script::new();
        let missing = || Making::Unavailable("no transcoder is installed".into());
        let present = |video: Option<Order>, audio: Option<&Arc<media_core::Track>>| {
            let mut present = Present { order: video.unwrap_or_default(), ..Present::default() };
            present.tracks[TrackId::VIDEO.index()] = video.map(|_| Arc::clone(&script.video));
            present.tracks[TrackId::AUDIO.index()] = audio.cloned();
            present
        };
        let check = |present: Present, video: Making, opus: Making, expected: Option<(bool, bool, bool)>| {
            let program = Program::of(&present, &video, &opus).ok();
            let known = program.map(|program| (program.video, program.audio, program.profile_level_id.is_some()));
            assert_eq!(known, expected, "{present:?} {video:?} {opus:?}");
        };
        let (shown, reordered) = (Some(Order::Shown), Some(Order::Reordered));
        check(present(None, None), missing(), missing(), Some((true, true, false)));
        check(present(shown, Some(&script.opus)), missing(), missing(), Some((true, true, true)));
        check(present(shown, Some(&script.aac)), missing(), missing(), Some((true, false, true)));
        check(present(shown, Some(&script.aac)), missing(), Making::Idle, Some((true, true, true)));
        check(present(shown, None), missing(), missing(), Some((true, false, true)));
        check(present(reordered, None), missing(), Making::Idle, None);
        check(present(reordered, Some(&script.aac)), Making::Idle, Making::Running, Some((true, true, false)));
        check(present(None, Some(&script.aac)), Making::Idle, missing(), None);
        check(present(None, Some(&script.opus)), Making::Idle, missing(), Some((false, true, false)));
        let mut other = present(shown, Some(&script.opus));
        other.tracks[TrackId::VIDEO.index()] = Some(av1_track());
        check(other.clone(), Making::Idle, missing(), Some((true, true, false)));
        check(other, missing(), Making::Idle, None);
        let announced = Present { announcement: Announcement { video: true, ..Announcement::default() }, ..present(None, None) };
        check(announced, missing(), missing(), Some((true, false, false)));
    }
}
