//! Reads typed values out of the layers: each with its range, each error with its key and place.

use std::{cell::RefCell, collections::BTreeSet, fmt::Display, net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::{
    error::{Error, Place},
    layers::{Layers, Value},
};

pub struct Reader<'a> {
    layers: &'a Layers,
    /// Keys of the reference that nobody has read: none may be left.
    unread: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Reader<'a> {
    pub fn new(layers: &'a Layers) -> Self {
        Self { layers, unread: RefCell::new(layers.keys().collect()) }
    }

    /// What `parse` makes of the text; it says what is wrong after the key and the place.
    pub fn text<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Error> {
        match self.value(key) {
            (Value::Text(text), place) => parse(text).map_err(|problem| wrong(key, place, problem)),
            (_, place) => Err(wrong(key, place, "must be text in quotes".to_owned())),
        }
    }

    pub fn address(&self, key: &str) -> Result<SocketAddr, Error> {
        self.text(key, |text| {
            text.parse().map_err(|_| {
                format!("is {text:?}, which is no address with a port, as in \"0.0.0.0:8080\", \"[::]:8080\" or \"127.0.0.1:0\"")
            })
        })
    }

    pub fn address_or_off(&self, key: &str) -> Result<Option<SocketAddr>, Error> {
        let off = self.text(key, |text| Ok(text == "off"))?;
        if off { Ok(None) } else { self.address(key).map(Some) }
    }

    pub fn switch(&self, key: &str) -> Result<bool, Error> {
        self.text(key, |text| match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("is {text:?}, and must be \"on\" or \"off\"")),
        })
    }

    pub fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Result<Duration, Error> {
        self.text(key, |text| {
            let value = parse_duration(text)
                .ok_or_else(|| format!("is {text:?}, which is no duration, as in \"1500ms\", \"2s\", \"5m\" or \"1h\""))?;
            in_range(value, &range, |d| format!("{:?}", render_duration(*d)))
        })
    }

    pub fn number<T: TryFrom<i64> + PartialOrd + Display>(&self, key: &str, range: RangeInclusive<T>) -> Result<T, Error> {
        let (value, place) = self.value(key);
        let Value::Number(number) = value else {
            return Err(wrong(key, place, "must be a whole number".to_owned()));
        };
        let told = || format!("must be between {} and {}, and is {number}", range.start(), range.end());
        let value = T::try_from(*number).map_err(|_| wrong(key, place, told()))?;
        in_range(value, &range, T::to_string).map_err(|problem| wrong(key, place, problem))
    }

    /// Keys that stand in the reference and that nobody has asked for.
    pub fn unread(&self) -> Vec<&'a str> {
        self.unread.borrow().iter().copied().collect()
    }

    fn value(&self, key: &str) -> (&Value, &Place) {
        self.unread.borrow_mut().remove(key);
        let (value, place) = self.layers.value(key).expect("every key that is read stands in the reference: a test reads all");
        (value, place)
    }
}

fn wrong(key: &str, place: &Place, problem: String) -> Error {
    Error::Value { key: key.to_owned(), place: place.clone(), problem }
}

fn in_range<T: PartialOrd>(value: T, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("must be between {} and {}, and is {}", show(range.start()), show(range.end()), show(&value)))
}

/// A whole number and its unit: `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// As `parse_duration` reads it.
pub fn render_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_its_unit() {
        let check = |text, ms: Option<u64>| assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
        check("1500ms", Some(1500));
        check("2s", Some(2000));
        check("2 s", Some(2000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("0ms", Some(0));
        for bad in ["", "2", "s", "-2s", "1.5s", "2 seconds", "99999999999999999999s", "18446744073709551615h"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_is_written() {
        for text in ["1500ms", "2s", "90s", "5m", "1h", "0ms"] {
            assert_eq!(render_duration(parse_duration(text).unwrap()), text);
        }
    }
}
