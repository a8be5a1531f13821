//! AMF0 (Action Message Format 0): a bounded reader, and the writer that replies need.
//!
//! The reader takes whatever a peer may legally send in linear time and bounded depth. What has
//! no length that could be skipped (AMF3, reserved markers) ends the message there: what was read
//! before it still counts.

use std::borrow::Cow;

/// Deepest nesting taken. Encoders send objects in arrays in objects: three.
pub const DEPTH_MAX: u32 = 8;
/// Most properties and array elements taken in one message; encoders send under fifty.
pub const PROPERTIES_MAX: usize = 256;
/// Longest message taken, so that a peer cannot make the reader work for nothing.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const REFERENCE: u8 = 0x07;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0a;
const DATE: u8 = 0x0b;
const LONG_STRING: u8 = 0x0c;
const UNSUPPORTED: u8 = 0x0d;
const XML: u8 = 0x0f;
const TYPED_OBJECT: u8 = 0x10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("an AMF0 message of {0} bytes: at most {MESSAGE_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("AMF0 objects nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("an AMF0 message with more than {PROPERTIES_MAX} properties")]
    TooMany,
    #[error("an AMF0 message that ends in the middle of a value")]
    Truncated,
}

/// One value, borrowed from the message where it can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Number(f64),
    Boolean(bool),
    /// Also long strings and XML. Bytes that are no UTF-8 are replaced.
    String(Cow<'a, str>),
    /// Also ECMA arrays and typed objects: all are names with values.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
    Array(Vec<Value<'a>>),
    /// Milliseconds since 1970.
    Date(f64),
    Null,
    Undefined,
    /// Something there that this reader has no use for: a reference, AMF3, a reserved marker.
    Opaque,
}

impl<'a> Value<'a> {
    pub fn text(text: &'a str) -> Self {
        Self::String(Cow::Borrowed(text))
    }

    pub fn object<const N: usize>(properties: [(&'a str, Value<'a>); N]) -> Self {
        Self::Object(properties.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The first property of that name.
    pub fn property(&self, name: &str) -> Option<&Value<'a>> {
        match self {
            Self::Object(properties) => properties.iter().find(|(n, _)| n == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// All values of one message. The body of the fuzz target.
pub fn read_all(bytes: &[u8]) -> Result<Vec<Value<'_>>, Error> {
    let mut reader = Reader::new(bytes)?;
    let mut values = Vec::new();
    while let Some(value) = reader.next_value()? {
        values.push(value);
    }
    Ok(values)
}

pub struct Reader<'a> {
    rest: &'a [u8],
    /// Values inside objects and arrays, and at the top, so far.
    properties: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Error::TooLong(bytes.len()));
        }
        Ok(Self { rest: bytes, properties: 0 })
    }

    /// `None` at the end of the message.
    pub fn next_value(&mut self) -> Result<Option<Value<'a>>, Error> {
        if self.rest.is_empty() { Ok(None) } else { self.value(0).map(Some) }
    }

    fn value(&mut self, depth: u32) -> Result<Value<'a>, Error> {
        self.properties += 1;
        if self.properties > PROPERTIES_MAX {
            return Err(Error::TooMany);
        }
        if depth > DEPTH_MAX {
            return Err(Error::TooDeep);
        }
        Ok(match self.u8()? {
            NUMBER => Value::Number(self.f64()?),
            BOOLEAN => Value::Boolean(self.u8()? != 0),
            STRING => Value::String(self.short_string()?),
            LONG_STRING | XML => Value::String(self.long_string()?),
            OBJECT => Value::Object(self.properties(depth)?),
            // The count is a hint: encoders write 0 or a wrong one, and end it like an object.
            ECMA_ARRAY => {
                self.u32()?;
                Value::Object(self.properties(depth)?)
            }
            TYPED_OBJECT => {
                self.short_string()?;
                Value::Object(self.properties(depth)?)
            }
            STRICT_ARRAY => Value::Array(self.elements(depth)?),
            DATE => {
                let millis = self.f64()?;
                self.take(2)?; // A time zone, always 0.
                Value::Date(millis)
            }
            NULL => Value::Null,
            UNDEFINED => Value::Undefined,
            UNSUPPORTED => Value::Opaque,
            REFERENCE => {
                self.take(2)?;
                Value::Opaque
            }
            // AMF3, MovieClip, RecordSet, an end without an object: nothing tells how long.
            _ => {
                self.rest = &[];
                Value::Opaque
            }
        })
    }

    /// Names and values up to the end marker. Some encoders forget it at the end of a message.
    fn properties(&mut self, depth: u32) -> Result<Vec<(Cow<'a, str>, Value<'a>)>, Error> {
        let mut properties = Vec::new();
        while !self.rest.is_empty() {
            let name = self.short_string()?;
            if name.is_empty() && self.rest.first() == Some(&OBJECT_END) {
                self.rest = &self.rest[1..];
                break;
            }
            properties.push((name, self.value(depth + 1)?));
        }
        Ok(properties)
    }

    fn elements(&mut self, depth: u32) -> Result<Vec<Value<'a>>, Error> {
        let count = self.u32()?;
        let mut elements = Vec::new(); // Grows with what is there: the count may lie.
        for _ in 0..count {
            if self.rest.is_empty() {
                break;
            }
            elements.push(self.value(depth + 1)?);
        }
        Ok(elements)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    fn f64(&mut self) -> Result<f64, Error> {
        self.array().map(f64::from_be_bytes)
    }

    fn short_string(&mut self) -> Result<Cow<'a, str>, Error> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(usize::from(length)).map(String::from_utf8_lossy)
    }

    fn long_string(&mut self) -> Result<Cow<'a, str>, Error> {
        let length = usize::try_from(self.u32()?).map_err(|_| Error::Truncated)?;
        self.take(length).map(String::from_utf8_lossy)
    }
}

/// Appends one value. `Opaque` is written as undefined.
pub fn write(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Number(number) => {
            out.push(NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(truth) => out.extend_from_slice(&[BOOLEAN, u8::from(*truth)]),
        Value::String(text) => write_string(out, text),
        Value::Object(properties) => {
            out.push(OBJECT);
            for (name, value) in properties {
                write_name(out, name);
                write(out, value);
            }
            out.extend_from_slice(&[0, 0, OBJECT_END]);
        }
        Value::Array(elements) => {
            out.push(STRICT_ARRAY);
            out.extend_from_slice(&u32::try_from(elements.len()).unwrap_or(u32::MAX).to_be_bytes());
            for element in elements {
                write(out, element);
            }
        }
        Value::Date(millis) => {
            out.push(DATE);
            out.extend_from_slice(&millis.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        Value::Null => out.push(NULL),
        Value::Undefined | Value::Opaque => out.push(UNDEFINED),
    }
}

/// Appends several values: a command or a data message.
pub fn write_all(out: &mut Vec<u8>, values: &[Value<'_>]) {
    for value in values {
        write(out, value);
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    if let Ok(length) = u16::try_from(text.len()) {
        out.push(STRING);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(LONG_STRING);
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    out.extend_from_slice(text.as_bytes());
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    // Names are literals of ours or were read with a 16-bit length.
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&name.as_bytes()[..usize::from(length)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            bytes.extend_from_slice(&[OBJECT, 0, 1, b'a']);
        }
        bytes.push(NULL);
        bytes
    }

    #[test]
    fn every_marker_is_read_or_skipped() {
        let check = |bytes: &[u8], expected: Value<'_>| {
            assert_eq!(read_all(bytes).as_deref(), Ok(&[expected][..]), "{bytes:02x?}");
        };
        check(&[0, 0x40, 0, 0, 0, 0, 0, 0, 0], Value::Number(2.0));
        check(&[1, 1], Value::Boolean(true));
        check(&[2, 0, 2, b'h', b'i'], Value::text("hi"));
        check(&[2, 0, 1, 0xff], Value::text("\u{fffd}"));
        check(&[3, 0, 1, b'a', 5, 0, 0, 9], Value::object([("a", Value::Null)]));
        check(&[3, 0, 1, b'a', 5], Value::object([("a", Value::Null)]));
        check(&[3, 0, 0, 5, 0, 0, 9], Value::object([("", Value::Null)]));
        check(&[4, 1, 2, 3], Value::Opaque);
        check(&[5], Value::Null);
        check(&[6], Value::Undefined);
        check(&[7, 0, 1], Value::Opaque);
        check(&[8, 0, 0, 0, 9, 0, 1, b'a', 6, 0, 0, 9], Value::object([("a", Value::Undefined)]));
        check(&[9], Value::Opaque);
        check(&[10, 0, 0, 0, 2, 5, 6], Value::Array(vec![Value::Null, Value::Undefined]));
        check(&[10, 0xff, 0xff, 0xff, 0xff, 5], Value::Array(vec![Value::Null]));
        check(&[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Value::Date(0.0));
        check(&[12, 0, 0, 0, 1, b'x'], Value::text("x"));
        check(&[13], Value::Opaque);
        check(&[14, 9, 9], Value::Opaque);
        check(&[15, 0, 0, 0, 1, b'<'], Value::text("<"));
        check(&[16, 0, 1, b'C', 0, 1, b'a', 5, 0, 0, 9], Value::object([("a", Value::Null)]));
        check(&[17, 10, 11, 1], Value::Opaque);
        check(&[0x42, 0], Value::Opaque);
    }

    #[test]
    fn limits_end_the_reading() {
        assert!(read_all(&nested(8)).is_ok());
        assert_eq!(read_all(&nested(9)), Err(Error::TooDeep));
        assert_eq!(read_all(&nested(16_000)), Err(Error::TooDeep), "60 KB of nested objects");
        assert_eq!(read_all(&nested(20_000)), Err(Error::TooLong(80_001)), "80 KB of them");
        let mut keys = vec![OBJECT];
        for _ in 0..10_000 {
            keys.extend_from_slice(&[0, 1, b'k', NULL]);
        }
        assert_eq!(read_all(&keys), Err(Error::TooMany));
        assert_eq!(read_all(&[NULL; 257]), Err(Error::TooMany));
    }

    #[test]
    fn what_is_written_is_read_and_no_cut_of_it_panics() {
        let long = "x".repeat(70_000);
        let value = Value::object([
            ("n", Value::Number(-0.5)),
            ("list", Value::Array(vec![Value::text("avc1"), Value::Boolean(false)])),
            ("when", Value::Date(1.0)),
            ("deep", Value::object([("null", Value::Null)])),
        ]);
        let mut bytes = Vec::new();
        write(&mut bytes, &value);
        assert_eq!(read_all(&bytes), Ok(vec![value]));
        for end in 0..bytes.len() {
            let _ = read_all(&bytes[..end]);
        }
        bytes.clear();
        write(&mut bytes, &Value::text(&long));
        assert_eq!((bytes[0], bytes.len()), (LONG_STRING, 70_005));
    }
}
