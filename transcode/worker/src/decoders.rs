//! Which element decodes a codec: of those that are installed, the one that has failed least, in the order of the list.
//!
//! Drivers and devices come and go; a decoder that fails in the middle of a stream is passed over when the next run begins. Damaged
//! pictures may look like its failure: whichever has failed no more often than the others is taken again, so none is lost for good.

use std::collections::BTreeMap;

use media_core::Parameters;

#[derive(Debug, PartialEq, Eq)]
pub struct Decoder {
    /// The factory's name.
    pub element: &'static str,
    /// As in a description of a pipeline.
    pub options: &'static str,
}

/// One thread, and nothing of a damaged picture. More threads would cost a picture of delay each.
const LIBAV: &str = "output-corrupt=false max-threads=1 thread-type=slice";

const fn decoder(element: &'static str, options: &'static str) -> Decoder {
    Decoder { element, options }
}

const H264: [Decoder; 2] = [decoder("avdec_h264", LIBAV), decoder("openh264dec", "")];
const HEVC: [Decoder; 2] = [decoder("avdec_h265", LIBAV), decoder("libde265dec", "max-threads=1")];
/// dav1d is several times as fast, but only newer distributions have an element of it.
const AV1: [Decoder; 2] = [decoder("dav1ddec", ""), decoder("av1dec", "")];

/// The decoders of one stream's process.
#[derive(Debug)]
pub struct Decoders {
    /// Best first.
    pub listed: fn(&Parameters) -> &'static [Decoder],
    failures: BTreeMap<&'static str, u32>,
}

impl Default for Decoders {
    fn default() -> Self {
        Self { listed, failures: BTreeMap::new() }
    }
}

impl Decoders {
    /// Those that are installed, in the order in which they are to be tried; none for sound.
    pub fn of(&self, parameters: &Parameters) -> Vec<&'static Decoder> {
        let mut all: Vec<_> = (self.listed)(parameters).iter().filter(|decoder| is_installed(decoder.element)).collect();
        all.sort_by_key(|decoder| self.failures.get(decoder.element).copied().unwrap_or(0));
        all
    }

    /// The next run has another, if there is one that failed less.
    pub fn demote(&mut self, decoder: &Decoder, why: &str) {
        let failures = self.failures.entry(decoder.element).or_default();
        *failures += 1;
        eprintln!("the decoder {} has failed, {failures} in all: {why}", decoder.element);
    }
}

/// Where none is installed: the names of those that would do.
pub fn lacking(parameters: &Parameters) -> Option<String> {
    let names: Vec<_> = listed(parameters).iter().map(|decoder| decoder.element).collect();
    names.iter().all(|name| !is_installed(name)).then(|| names.join(" or "))
}

/// What could decode it, best first.
fn listed(parameters: &Parameters) -> &'static [Decoder] {
    match parameters {
        Parameters::H264(_) => &H264,
        Parameters::Hevc(_) => &HEVC,
        Parameters::Av1(_) => &AV1,
        Parameters::Aac(_) | Parameters::Opus(_) => &[],
    }
}

/// None of H.264 is installed: the name of the one to install.
pub fn lacks_h264() -> Option<&'static str> {
    H264.iter().all(|decoder| !is_installed(decoder.element)).then_some(H264[0].element)
}

pub fn is_installed(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}
