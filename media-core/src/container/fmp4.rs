//! CMAF fragmented MP4 (ISO/IEC 23000-19, ISO/IEC 14496-12): one track a file.
//!
//! The initialization segment is built by `mp4-atom`. A Part is written straight into one buffer
//! of the right size: `moof`, `mdat`, payloads, so each media byte is copied once.

use bytes::{BufMut, Bytes, BytesMut};
use mp4_atom as mp4;
use mp4_atom::{Atom, Encode};

use crate::{
    codec::{aac, av1, h264, hevc, opus},
    sample::{Parameters, Track},
};

/// Every file holds one track, so every track is number 1.
const TRACK_ID: u32 = 1;

/// sample_flags (14496-12 8.8.3.1): depends on no other, is sync.
const FLAGS_SYNC: u32 = 0x0200_0000;
/// Depends on others, is non-sync.
const FLAGS_NON_SYNC: u32 = 0x0101_0000;

#[derive(Debug, thiserror::Error)]
#[error("fMP4: the initialization segment cannot be written: {0}")]
pub struct InitError(#[from] mp4::Error);

/// A Sample placed on the presentation's timeline.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Ticks of the track.
    pub duration: u32,
    /// Composition time offset in ticks: pts - dts.
    pub offset: i32,
    pub keyframe: bool,
    /// What goes ahead of the payload, if anything.
    pub prefix: Bytes,
    pub payload: Bytes,
}

impl Unit {
    fn len(&self) -> usize {
        self.prefix.len() + self.payload.len()
    }
}

/// The Media Initialization Section (`EXT-X-MAP`) of a track.
pub fn init_segment(track: &Track) -> Result<Bytes, InitError> {
    let mut out = Vec::with_capacity(1024);
    let brands: &[&[u8; 4]] = &[b"iso6", b"cmfc", b"mp41"];
    mp4::Ftyp { major_brand: b"iso6".into(), minor_version: 1, compatible_brands: brands.iter().map(|&b| b.into()).collect() }
        .encode(&mut out)?;
    moov(track)?.encode(&mut out)?;
    Ok(out.into())
}

fn moov(track: &Track) -> Result<mp4::Moov, InitError> {
    let timescale = track.timescale.ticks_per_second();
    let mut tkhd = mp4::Tkhd { track_id: TRACK_ID, enabled: true, in_movie: true, ..Default::default() };
    let mut minf = mp4::Minf {
        dinf: mp4::Dinf { dref: mp4::Dref { entries: vec![mp4::DrefEntry::Url(mp4::Url::default())] } },
        ..Default::default()
    };
    minf.stbl.stco = Some(mp4::Stco::default());
    let hdlr = match &track.parameters {
        Parameters::H264(_) | Parameters::Hevc(_) | Parameters::Av1(_) => {
            let (width, height) = track.parameters.size().map_or((0, 0), |(width, height)| (pixels(width), pixels(height)));
            (tkhd.width, tkhd.height) = (width.into(), height.into());
            minf.vmhd = Some(mp4::Vmhd::default());
            minf.stbl.stsd.codecs.extend(picture(&track.parameters, width, height)?);
            mp4::Hdlr { handler: b"vide".into(), name: "video".into() }
        }
        Parameters::Opus(p) => {
            tkhd.volume = 1.into();
            tkhd.alternate_group = 1;
            minf.smhd = Some(mp4::Smhd::default());
            minf.stbl.stsd.codecs.push(opus(p).into());
            mp4::Hdlr { handler: b"soun".into(), name: "audio".into() }
        }
        Parameters::Aac(p) => {
            tkhd.volume = 1.into();
            tkhd.alternate_group = 1;
            minf.smhd = Some(mp4::Smhd::default());
            minf.stbl.stsd.codecs.push(mp4a(p).into());
            mp4::Hdlr { handler: b"soun".into(), name: "audio".into() }
        }
    };
    let trex = mp4::Trex { track_id: TRACK_ID, default_sample_description_index: 1, ..Default::default() };
    Ok(mp4::Moov {
        mvhd: mp4::Mvhd { timescale: 1000, rate: 1.into(), volume: 1.into(), next_track_id: TRACK_ID + 1, ..Default::default() },
        mvex: Some(mp4::Mvex { mehd: None, trex: vec![trex] }),
        trak: vec![mp4::Trak {
            tkhd,
            mdia: mp4::Mdia { mdhd: mp4::Mdhd { timescale, language: "und".into(), ..Default::default() }, hdlr, minf },
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn pixels(side: u32) -> u16 {
    u16::try_from(side).unwrap_or(u16::MAX)
}

/// The sample entry of a picture, with the decoder's configuration as it came.
fn picture(parameters: &Parameters, width: u16, height: u16) -> Result<Option<mp4::Codec>, InitError> {
    let visual = mp4::Visual { data_reference_index: 1, width, height, ..Default::default() };
    Ok(match parameters {
        Parameters::H264(h264::Parameters { record, .. }) => {
            let avcc = mp4::Avcc::decode_body(&mut &record[..])?;
            Some(mp4::Avc1 { visual, avcc, ..Default::default() }.into())
        }
        Parameters::Hevc(hevc::Parameters { record, .. }) => {
            let hvcc = mp4::Hvcc::decode_body(&mut &record[..])?;
            Some(mp4::Hvc1 { visual, hvcc, ..Default::default() }.into())
        }
        Parameters::Av1(av1::Parameters { record, .. }) => {
            let av1c = mp4::Av1c::decode_body(&mut &record[..])?;
            Some(mp4::Av01 { visual, av1c, ..Default::default() }.into())
        }
        Parameters::Aac(_) | Parameters::Opus(_) => None,
    })
}

fn opus(p: &opus::Parameters) -> mp4::Opus {
    mp4::Opus {
        audio: mp4::Audio {
            data_reference_index: 1,
            channel_count: p.channels.into(),
            sample_size: 16,
            sample_rate: 48_000.into(),
        },
        dops: mp4::Dops {
            output_channel_count: p.channels,
            pre_skip: 0,
            input_sample_rate: opus::SAMPLE_RATE,
            output_gain: 0,
            channel_mapping: None,
        },
        btrt: None,
    }
}

fn mp4a(p: &aac::Parameters) -> mp4::Mp4a {
    mp4::Mp4a {
        audio: mp4::Audio {
            data_reference_index: 1,
            channel_count: p.channels().into(),
            sample_size: 16,
            // Rates above 16 bits do not fit this field; the AudioSpecificConfig tells.
            sample_rate: u16::try_from(p.sample_rate).unwrap_or(0).into(),
        },
        esds: mp4::Esds {
            es_desc: mp4::esds::EsDescriptor {
                es_id: u16::try_from(TRACK_ID).expect("1 fits"),
                dec_config: mp4::esds::DecoderConfig {
                    object_type_indication: 0x40, // MPEG-4 audio
                    stream_type: 5,
                    dec_specific: Some(mp4::esds::DecoderSpecific { raw: p.config.to_vec(), ..Default::default() }),
                    ..Default::default()
                },
                ..Default::default()
            },
        },
        btrt: None,
        taic: None,
    }
}

/// Appends one `moof` and its `mdat`.
///
/// `sequence` grows by one a Part; `base` is the decode time of the first Unit in ticks.
pub fn write_part(out: &mut BytesMut, sequence: u32, base: u64, units: &[Unit]) {
    let media: usize = units.iter().map(Unit::len).sum();
    let trun = 8 + 12 + units.len() * 16;
    let traf = 8 + 16 + 20 + trun;
    let moof = 8 + 16 + traf;
    let start = out.len();
    out.reserve(moof + 8 + media);

    put_box(out, moof, b"moof");
    put_box(out, 16, b"mfhd");
    out.put_u32(0);
    out.put_u32(sequence);
    put_box(out, traf, b"traf");
    put_box(out, 16, b"tfhd");
    out.put_u32(0x02_0000); // default-base-is-moof
    out.put_u32(TRACK_ID);
    put_box(out, 20, b"tfdt");
    out.put_u32(0x0100_0000); // version 1: 64 bits
    out.put_u64(base);
    put_box(out, trun, b"trun");
    out.put_u32(0x0100_0f01); // version 1: signed offsets; data offset, duration, size, flags, composition offset
    out.put_u32(size(units.len()));
    out.put_u32(size(moof + 8));
    for unit in units {
        out.put_u32(unit.duration);
        out.put_u32(size(unit.len()));
        out.put_u32(if unit.keyframe { FLAGS_SYNC } else { FLAGS_NON_SYNC });
        out.put_i32(unit.offset);
    }
    put_box(out, 8 + media, b"mdat");
    for unit in units {
        out.put_slice(&unit.prefix);
        out.put_slice(&unit.payload);
    }
    debug_assert_eq!(out.len() - start, moof + 8 + media);
}

fn put_box(out: &mut BytesMut, bytes: usize, kind: &[u8; 4]) {
    out.put_u32(size(bytes));
    out.put_slice(kind);
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a Part is bounded by its Samples, and those by the ingest, far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Any, DecodeMaybe};

    use super::*;
    use crate::{sample::TrackId, timestamp::Timescale};

    fn boxes(mut bytes: &[u8]) -> Vec<Any> {
        let mut found = Vec::new();
        while let Some(any) = Any::decode_maybe(&mut bytes).unwrap() {
            found.push(any);
        }
        assert!(bytes.is_empty());
        found
    }

    #[test]
    fn an_init_segment_holds_the_parameters_as_they_came() {
        let record = Bytes::from_static(h264::tests::RECORD_360P30);
        let video = Track {
            id: TrackId::VIDEO,
            timescale: Timescale::MILLIS,
            parameters: Parameters::H264(h264::Parameters::parse(record.clone()).unwrap()),
        };
        let bytes = init_segment(&video).unwrap();
        assert!(bytes.windows(record.len()).any(|w| w == record), "avcC byte for byte");
        let config = Bytes::from_static(&[0x12, 0x08, 0x56, 0xe5, 0x00]);
        let audio = Track {
            id: TrackId::AUDIO,
            timescale: Timescale::new(44_100).unwrap(),
            parameters: Parameters::Aac(aac::Parameters::parse(config.clone()).unwrap()),
        };
        let bytes = init_segment(&audio).unwrap();
        assert!(bytes.windows(config.len()).any(|w| w == config), "AudioSpecificConfig byte for byte");
        let [Any::Ftyp(_), Any::Moov(moov)] = &boxes(&bytes)[..] else { panic!("ftyp, moov") };
        assert_eq!(moov.trak[0].mdia.mdhd.timescale, 44_100);
    }

    #[test]
    fn pictures_of_every_codec_keep_their_record() {
        let hevc = hevc::tests::bytes(hevc::tests::RECORD_360P30);
        let av1 = hevc::tests::bytes(av1::tests::RECORD_360P30);
        for (kind, record, parameters) in [
            (b"hvc1", hevc.clone(), Parameters::Hevc(hevc::Parameters::parse(hevc).unwrap())),
            (b"av01", av1.clone(), Parameters::Av1(av1::Parameters::parse(av1).unwrap())),
        ] {
            let track = Track { id: TrackId::VIDEO, timescale: Timescale::MILLIS, parameters };
            let bytes = init_segment(&track).unwrap();
            assert!(bytes.windows(4).any(|w| w == kind));
            assert!(bytes.windows(record.len()).any(|w| w == record), "the record byte for byte");
            let [Any::Ftyp(_), Any::Moov(moov)] = &boxes(&bytes)[..] else { panic!("ftyp, moov") };
            assert_eq!((moov.trak[0].tkhd.width, moov.trak[0].tkhd.height), (640.into(), 360.into()));
        }
    }

    #[test]
    fn a_part_is_read_back_as_written() {
        let unit = |duration, offset, keyframe, payload: &'static [u8]| Unit {
            duration,
            offset,
            keyframe,
            prefix: Bytes::new(),
            payload: payload.into(),
        };
        let units = [unit(33, 66, true, b"abcdef"), unit(34, -1, false, b"gh")];
        let mut out = BytesMut::new();
        write_part(&mut out, 7, 1 << 40, &units);
        let [Any::Moof(moof), Any::Mdat(mdat)] = &boxes(&out)[..] else { panic!("moof, mdat") };
        assert_eq!(moof.mfhd.sequence_number, 7);
        let traf = &moof.traf[0];
        assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time, 1 << 40);
        let entries = &traf.trun[0].samples;
        assert_eq!(
            entries.iter().map(|e| (e.duration, e.size, e.cts)).collect::<Vec<_>>(),
            [(Some(33), Some(6), Some(66)), (Some(34), Some(2), Some(-1))]
        );
        assert_eq!(entries.iter().map(|e| e.flags).collect::<Vec<_>>(), [Some(FLAGS_SYNC), Some(FLAGS_NON_SYNC)]);
        let offset = traf.trun[0].data_offset.unwrap() as usize;
        assert_eq!(&out[offset..], b"abcdefgh");
        assert_eq!(mdat.data, b"abcdefgh");
    }
}
