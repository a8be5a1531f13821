//! The layers of a simulcast publisher, the pictures of a multitrack one and the rungs of the ladder, as a viewer sees and
//! chooses them (WHEP's video layer selection).
//!
//! The document is `{"layers":[{"encodingId":"h","width":1280,"height":720,"active":true}]}`, the largest first, rungs behind
//! the publisher's with their cost; a choice is `{"encodingId":"h"}`, or `{}` for ours. `rid`, the draft's later word, is
//! taken and told as well.

use media_core::{Parameters, Rung, TrackId, sample::Layer, stream::Present};
use serde::{Deserialize, Serialize};

use super::{broadcast::Tracks, program::is_to_be_made};

#[derive(Serialize)]
struct Document<'a> {
    layers: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    encoding_id: &'a str,
    rid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_per_second: Option<u32>,
}

/// The picture of a publisher who names no layers, beside rungs.
const SOURCE: &str = "source";

/// Members that we do not know, and `mediaId` (there is one video m-line), are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Choice {
    #[serde(alias = "rid")]
    encoding_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the choice of a layer is a JSON object: {{\"encodingId\": \"...\"}}, or {{}} to leave it to the server")]
    NotAChoice,
    #[error("there is no such layer now: the last `layers` event names those that can be chosen")]
    NoSuchLayer,
}

/// Empty where there is nothing to choose.
pub fn document(present: &Present, active: Tracks, rungs: &[Rung]) -> String {
    let can_be_sent =
        |layer: &&Layer| present.track(layer.track).is_none_or(|track| matches!(track.parameters, Parameters::H264(_)));
    let mut entries: Vec<_> = layers(present).iter().filter(can_be_sent).map(|layer| entry(layer, present, active)).collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.height));
    if entries.is_empty() && !rungs.is_empty() {
        entries.push(entry_of(SOURCE, TrackId::VIDEO, present, active));
    }
    entries.extend(rungs.iter().map(|rung| rung_entry(rung, present)));
    if entries.len() < 2 {
        return String::new();
    }
    serde_json::to_string(&Document { layers: entries }).expect("strings and numbers can be written")
}

/// Of a picture that has to be made only the main one is.
fn layers(present: &Present) -> &[Layer] {
    if is_to_be_made(present) { &[] } else { &present.announcement.layers }
}

fn entry<'a>(layer: &'a Layer, present: &Present, active: Tracks) -> Entry<'a> {
    entry_of(&layer.rid, layer.track, present, active)
}

fn entry_of<'a>(name: &'a str, track: TrackId, present: &Present, active: Tracks) -> Entry<'a> {
    let size = present.track(track).and_then(|track| track.parameters.size());
    Entry {
        encoding_id: name,
        rid: name,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        active: active.has(track),
        frames_per_second: None,
        bits_per_second: None,
    }
}

/// Made when somebody wants it, so it can be had at any time.
fn rung_entry(rung: &Rung, present: &Present) -> Entry<'static> {
    let source = present.track(TrackId::VIDEO).and_then(|track| track.parameters.size());
    let size = source.map(|size| rung.setting.size(size));
    let name = rung.made.as_str();
    Entry {
        encoding_id: name,
        rid: name,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        active: true,
        frames_per_second: Some(rung.frame_rate()).filter(|rate| *rate > 0.0),
        bits_per_second: Some(rung.setting.bitrate),
    }
}

/// The track that a viewer asks for; `None` leaves it to us.
pub fn choose(body: &[u8], present: &Present, active: Tracks, rungs: &[Rung]) -> Result<Option<TrackId>, Error> {
    let choice: Choice = serde_json::from_slice(body).map_err(|_| Error::NotAChoice)?;
    let Some(wanted) = choice.encoding_id else { return Ok(None) };
    let layer = layers(present).iter().find(|layer| *layer.rid == *wanted).map(|layer| layer.track);
    let layer = layer.or_else(|| (wanted == SOURCE && layers(present).is_empty()).then_some(TrackId::VIDEO));
    let rung = || rungs.iter().find(|rung| rung.made.as_str() == wanted).map(|rung| rung.id);
    layer.filter(|track| active.has(*track)).or_else(rung).map(Some).ok_or(Error::NoSuchLayer)
}

#[cfg(test)]
mod tests {
    use media_core::{Ladder, timeline::Grid};

    use super::*;
    use crate::whep::tests::{Script, av1_track, simulcast};

    fn layer(n: u8) -> TrackId {
        TrackId::layer(n).unwrap()
    }

    #[test]
    fn a_publisher_of_one_picture_leaves_no_choice() {
        assert_eq!(document(&Present::default(), Tracks::default(), &[]), "");
    }

    #[test]
    fn of_a_picture_that_is_made_there_are_no_layers() {
        let mut present = simulcast(&Script::new());
        present.tracks[TrackId::VIDEO.index()] = Some(av1_track());
        assert_eq!(document(&present, Tracks::default().with(TrackId::VIDEO), &[]), "");
        let choice = br#"{"encodingId":"m"}"#;
        assert_eq!(choose(choice, &present, Tracks::default().with(TrackId::VIDEO), &[]), Err(Error::NoSuchLayer));
    }

    /// Of a source at 30 pictures a second.
    fn rungs() -> Vec<Rung> {
        let known = Grid { target_duration: 4, part_target_ms: 200, frame_rate: 30.0, ..Grid::default() };
        let grid = Grid { independent_segments: true, ..known };
        Rung::all(&Ladder::parse("180p10 400k, 90p 100k").unwrap(), &grid).split_off(1)
    }

    #[test]
    fn rungs_are_told_with_their_cost_and_chosen() {
        let mut present = simulcast(&Script::new());
        present.announcement.layers.clear();
        let (active, rungs) = (Tracks::default().with(TrackId::VIDEO), rungs());
        let listed = concat!(
            r#"{"layers":[{"encodingId":"source","rid":"source","width":640,"height":360,"active":true},"#,
            r#"{"encodingId":"rung-2","rid":"rung-2","width":320,"height":180,"active":true,"framesPerSecond":10.0,"bitsPerSecond":400000},"#,
            r#"{"encodingId":"rung-3","rid":"rung-3","width":160,"height":90,"active":true,"framesPerSecond":30.0,"bitsPerSecond":100000}]}"#
        );
        assert_eq!(document(&present, active, &rungs), listed);
        let check = |body: &str, track| assert_eq!(choose(body.as_bytes(), &present, active, &rungs), track, "{body}");
        check(r#"{"encodingId":"rung-3"}"#, Ok(TrackId::rung(2)));
        check(r#"{"encodingId":"source"}"#, Ok(Some(TrackId::VIDEO)));
        check(r#"{"encodingId":"rung-1"}"#, Err(Error::NoSuchLayer));
        check(r#"{"encodingId":"rung-4"}"#, Err(Error::NoSuchLayer));
        // Of a picture that is made itself, too.
        present.tracks[TrackId::VIDEO.index()] = Some(av1_track());
        assert!(document(&present, active, &rungs).contains(r#""encodingId":"rung-2""#));
        assert!(
            document(&simulcast(&Script::new()), active, &rungs).contains(r#""rid":"l","active":false},{"encodingId":"rung-2""#)
        );
    }

    #[test]
    fn layers_are_told_and_chosen() {
        let present = simulcast(&Script::new());
        let active = Tracks::default().with(TrackId::VIDEO).with(layer(0));
        assert_eq!(
            document(&present, active, &[]),
            concat!(
                r#"{"layers":[{"encodingId":"h","rid":"h","width":640,"height":360,"active":true},"#,
                r#"{"encodingId":"m","rid":"m","width":320,"height":180,"active":true},"#,
                r#"{"encodingId":"l","rid":"l","active":false}]}"#
            )
        );
        let check = |body: &str, track| assert_eq!(choose(body.as_bytes(), &present, active, &[]), track, "{body}");
        check(r#"{"encodingId":"m"}"#, Ok(Some(layer(0))));
        check(r#"{"mediaId":"1","rid":"m","maxWidth":1}"#, Ok(Some(layer(0))));
        check(r#"{"encodingId":"h"}"#, Ok(Some(TrackId::VIDEO)));
        check("{}", Ok(None));
        check(r#"{"encodingId":null}"#, Ok(None));
        check(r#"{"encodingId":"l"}"#, Err(Error::NoSuchLayer));
        check(r#"{"encodingId":"x"}"#, Err(Error::NoSuchLayer));
        check("[]", Err(Error::NotAChoice));
        check(r#"{"encodingId":7}"#, Err(Error::NotAChoice));
        check("", Err(Error::NotAChoice));
    }
}
