//! Payloads in, outputs out: for the tests of each codec.

use super::*;

pub fn piece(timestamp: u32, payload: impl Into<Vec<u8>>) -> Piece {
    Piece { timestamp, marker: false, gap: false, payload: Bytes::from(payload.into()), received: Instant::now() }
}

pub fn marked(piece: Piece) -> Piece {
    Piece { marker: true, ..piece }
}

pub fn after_gap(piece: Piece) -> Piece {
    Piece { gap: true, ..piece }
}

pub fn feed(depacketizer: &mut Depacketizer, pieces: &[Piece]) -> Vec<Output> {
    let mut outputs = Vec::new();
    for piece in pieces {
        depacketizer.handle_piece(piece);
        outputs.extend(std::iter::from_fn(|| depacketizer.poll()));
    }
    outputs
}
