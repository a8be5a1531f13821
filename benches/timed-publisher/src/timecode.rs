//! A wall-clock time in a picture: the low 32 bits of milliseconds and an 8-bit CRC, as 40 black
//! and white cells, 10 columns by 4 rows, filling the left half and the top third of the picture
//! whatever its size. Readable after lossy coding and after downscaling.
//!
//! The page that measures latency reads the same code; both must agree bit for bit.

pub const COLUMNS: usize = 10;
pub const ROWS: usize = 4;

/// The cells for a time, row by row: true is white.
pub fn cells(wall_ms: u64) -> [bool; COLUMNS * ROWS] {
    let time = low32(wall_ms);
    let word = (u64::from(time) << 8) | u64::from(crc8(time));
    std::array::from_fn(|i| (word >> (COLUMNS * ROWS - 1 - i)) & 1 == 1)
}

/// The time read back, or `None` where the check does not hold. `luma(column, row)` is the
/// brightness at a cell's middle.
pub fn read(luma: impl Fn(usize, usize) -> u8) -> Option<u32> {
    let word = (0..COLUMNS * ROWS).fold(0u64, |word, i| (word << 1) | u64::from(luma(i % COLUMNS, i / COLUMNS) > 127));
    let time = (word >> 8) as u32;
    (crc8(time) == word as u8).then_some(time)
}

/// Milliseconds since the epoch, modulo 2^32.
pub fn low32(wall_ms: u64) -> u32 {
    wall_ms as u32
}

/// CRC-8 with polynomial 0x07 and start 0xff, most significant bit first.
fn crc8(time: u32) -> u8 {
    time.to_be_bytes()
        .iter()
        .fold(0xff, |crc, byte| (0..8).fold(crc ^ byte, |c: u8, _| if c & 0x80 != 0 { (c << 1) ^ 0x07 } else { c << 1 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_painted_is_read_back() {
        for ms in [0, 1, 1_700_000_000_123, u64::from(u32::MAX), u64::from(u32::MAX) + 1] {
            let cells = cells(ms);
            assert_eq!(read(|c, r| if cells[r * COLUMNS + c] { 235 } else { 16 }), Some(low32(ms)), "{ms}");
        }
    }

    #[test]
    fn one_wrong_cell_is_noticed() {
        let cells = cells(1_700_000_000_123);
        for wrong in 0..COLUMNS * ROWS {
            let luma = |c, r| if cells[r * COLUMNS + c] != (r * COLUMNS + c == wrong) { 235 } else { 16 };
            assert_eq!(read(luma), None, "cell {wrong}");
        }
    }

    /// Made by the page's own script: node -e 'import("./timecode.mjs").then(t => ...cells(ms))'.
    #[test]
    fn the_page_paints_the_same() {
        let check = |ms, expected: &str| {
            let painted: String = cells(ms).iter().map(|on| if *on { '1' } else { '0' }).collect();
            assert_eq!(painted, expected, "{ms}");
        };
        check(0, "0000000000000000000000000000000011010001");
        check(1_700_000_000_123, "1100111111100101011010000111101110011100");
        check(4_294_967_295, "1111111111111111111111111111111100001111");
    }
}
