//! An RTMP publisher whose every picture carries its own capture time, and that adds no steady
//! delay of its own; and one that loops an encoded clip, many at once.
//!
//! `live` paints on a monotonic grid (`picture`, `timecode`), has one child ffmpeg code it
//! (`encoder`), and sends it with RTMP timestamps equal to capture times; a tone goes on its own
//! clock (`tone`). `clip` sends an FLV. Both report delays, so that a latency measured with them
//! can be calibrated. `rtmp` is a client and shares no code with the server.

pub mod clip;
pub mod encoder;
pub mod flv;
pub mod live;
pub mod picture;
pub mod report;
pub mod rtmp;
pub mod timecode;
pub mod tone;
