//! The layers of a simulcast publisher, and the pictures of a multitrack one, as a viewer sees and chooses them (WHEP's
//! video layer selection).
//!
//! The document is `{"layers":[{"encodingId":"h","width":1280,"height":720,"active":true}]}`, the largest first; a
//! choice is `{"encodingId":"h"}`, or `{}` for ours. `rid`, the draft's later word, is taken and told as well.

use media_core::{Parameters, TrackId, sample::Layer, stream::Present};
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
}

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
pub fn document(present: &Present, active: Tracks) -> String {
    let layers = &present.announcement.layers;
    // Of a picture that has to be made only the main one is.
    if is_to_be_made(present) {
        return String::new();
    }
    let can_be_sent =
        |layer: &&Layer| present.track(layer.track).is_none_or(|track| matches!(track.parameters, Parameters::H264(_)));
    let mut entries: Vec<_> = layers.iter().filter(can_be_sent).map(|layer| entry(layer, present, active)).collect();
    if entries.len() < 2 {
        return String::new();
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.height));
    serde_json::to_string(&Document { layers: entries }).expect("strings and numbers can be written")
}

fn entry<'a>(layer: &'a Layer, present: &Present, active: Tracks) -> Entry<'a> {
    let size = present.track(layer.track).and_then(|track| track.parameters.size());
    Entry {
        encoding_id: &layer.rid,
        rid: &layer.rid,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        active: active.has(layer.track),
    }
}

/// The track that a viewer asks for.
pub fn choose(body: &[u8], present: &Present, active: Tracks) -> Result<TrackId, Error> {
    let choice: Choice = serde_json::from_slice(body).map_err(|_| Error::NotAChoice)?;
    let Some(wanted) = choice.encoding_id else { return Ok(TrackId::VIDEO) };
    let layers = &present.announcement.layers;
    let layer = layers.iter().find(|layer| *layer.rid == *wanted).ok_or(Error::NoSuchLayer)?;
    if active.has(layer.track) { Ok(layer.track) } else { Err(Error::NoSuchLayer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whep::tests::{Script, av1_track, simulcast};

    fn layer(n: u8) -> TrackId {
        TrackId::layer(n).unwrap()
    }

    #[test]
    fn a_publisher_of_one_picture_leaves_no_choice() {
        assert_eq!(document(&Present::default(), Tracks::default()), "");
    }

    #[test]
    fn of_a_picture_that_is_made_there_are_no_layers() {
        let mut present = simulcast(&Script::new());
        present.tracks[TrackId::VIDEO.index()] = Some(av1_track());
        assert_eq!(document(&present, Tracks::default().with(TrackId::VIDEO)), "");
        let choice = br#"{"encodingId":"m"}"#;
        assert_eq!(choose(choice, &present, Tracks::default().with(TrackId::VIDEO)), Err(Error::NoSuchLayer));
    }

    #[test]
    fn layers_are_told_and_chosen() {
        let present = simulcast(&Script::new());
        let active = Tracks::default().with(TrackId::VIDEO).with(layer(0));
        assert_eq!(
            document(&present, active),
            concat!(
                r#"{"layers":[{"encodingId":"h","rid":"h","width":640,"height":360,"active":true},"#,
                r#"{"encodingId":"m","rid":"m","width":320,"height":180,"active":true},"#,
                r#"{"encodingId":"l","rid":"l","active":false}]}"#
            )
        );
        let check = |body: &str, track| assert_eq!(choose(body.as_bytes(), &present, active), track, "{body}");
        check(r#"{"encodingId":"m"}"#, Ok(layer(0)));
        check(r#"{"mediaId":"1","rid":"m","maxWidth":1}"#, Ok(layer(0)));
        check(r#"{"encodingId":"h"}"#, Ok(TrackId::VIDEO));
        check("{}", Ok(TrackId::VIDEO));
        check(r#"{"encodingId":null}"#, Ok(TrackId::VIDEO));
        check(r#"{"encodingId":"l"}"#, Err(Error::NoSuchLayer));
        check(r#"{"encodingId":"x"}"#, Err(Error::NoSuchLayer));
        check("[]", Err(Error::NotAChoice));
        check(r#"{"encodingId":7}"#, Err(Error::NotAChoice));
        check("", Err(Error::NotAChoice));
    }
}
