//! Paints the pictures: grey, a moving gradient below, the time code in the left half and the top
//! third. Pure: the caller says which frame and what time.

use crate::timecode::{self, COLUMNS, ROWS};

/// Largest picture painted: 4K, 12 MiB a frame.
const PIXELS_MAX: usize = 3840 * 2160;
const WHITE: u8 = 235;
const BLACK: u8 = 16;
const GREY: u8 = 128;

/// Width and height in pixels: even, as 4:2:0 needs, and large enough for the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (width, height) = text.split_once('x').ok_or("a size is WIDTHxHEIGHT")?;
        let [width, height] = [width, height].map(|n| n.parse::<usize>().unwrap_or(0));
        if width < 160 || height < 90 || width % 2 != 0 || height % 2 != 0 || width.saturating_mul(height) > PIXELS_MAX {
            return Err(format!("{text}: even numbers from 160x90 up to 3840x2160"));
        }
        Ok(Self { width, height })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// One picture's buffer (planar YUV 4:2:0), painted again and again.
pub struct Painter {
    size: Size,
    picture: Vec<u8>,
}

impl Painter {
    pub fn new(size: Size) -> Self {
        Self { size, picture: vec![GREY; size.width * size.height * 3 / 2] }
    }

    /// Frame number `number`, captured at `wall_ms`.
    pub fn paint(&mut self, number: u64, wall_ms: u64) -> &[u8] {
        self.paint_motion(number);
        self.paint_time(wall_ms);
        &self.picture
    }

    /// Something that moves, so that every frame costs the encoder something.
    fn paint_motion(&mut self, number: u64) {
        let Size { width, height } = self.size;
        let rows = self.picture[..width * height].chunks_exact_mut(width).enumerate();
        for (y, row) in rows.skip(height.div_ceil(3)) {
            row.fill(40 + ((y as u64).wrapping_add(number.wrapping_mul(2)) & 127) as u8);
        }
    }

    fn paint_time(&mut self, wall_ms: u64) {
        let Size { width, height } = self.size;
        let (cell_width, cell_height) = (rounded(width, 2 * COLUMNS), rounded(height, 3 * ROWS));
        let cells = timecode::cells(wall_ms);
        for (y, row) in self.picture.chunks_exact_mut(width).take(ROWS * cell_height).enumerate() {
            for (cell, on) in row.chunks_exact_mut(cell_width).zip(&cells[y / cell_height * COLUMNS..][..COLUMNS]) {
                cell.fill(if *on { WHITE } else { BLACK });
            }
        }
    }
}

fn rounded(pixels: usize, parts: usize) -> usize {
    (pixels + parts / 2) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_at_every_size() {
        for text in ["160x90", "640x360", "854x480", "1280x720", "1920x1080"] {
            let size: Size = text.parse().unwrap();
            let mut painter = Painter::new(size);
            let picture = painter.paint(7, 1_700_000_000_123);
            let at = |share: f64, whole: usize| (share * whole as f64) as usize;
            let luma = |column: usize, row: usize| {
                let x = at((column as f64 + 0.5) / 20.0, size.width);
                let y = at((row as f64 + 0.5) / 12.0, size.height);
                picture[y * size.width + x]
            };
            assert_eq!(timecode::read(luma), Some(timecode::low32(1_700_000_000_123)), "{text}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_painted_are_refused() {
        for text in ["", "640", "641x360", "20x20", "100000x100000", "-2x90"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
