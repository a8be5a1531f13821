//! The little AMF0 a publishing client needs: it writes commands, and of the server's it wants the
//! name, the transaction and the strings of a status. Pure.

/// Deepest object read; a status has one level.
const DEPTH_MAX: usize = 8;

/// Appends values to a command.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn command(name: &str, transaction: f64) -> Self {
        Self::default().string(name).number(transaction)
    }

    pub fn string(mut self, text: &str) -> Self {
        self.0.push(2);
        self.name(text);
        self
    }

    pub fn number(mut self, value: f64) -> Self {
        self.0.push(0);
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn null(mut self) -> Self {
        self.0.push(5);
        self
    }

    /// An object whose values are all strings.
    pub fn object(mut self, fields: &[(&str, &str)]) -> Self {
        self.0.push(3);
        for (name, value) in fields {
            self.name(name);
            self = self.string(value);
        }
        self.0.extend([0, 0, 9]);
        self
    }

    /// An array by name of numbers, as `onMetaData` carries.
    pub fn numbers(mut self, fields: &[(&str, f64)]) -> Self {
        self.0.push(8);
        self.0.extend((fields.len() as u32).to_be_bytes());
        for (name, value) in fields {
            self.name(name);
            self = self.number(*value);
        }
        self.0.extend([0, 0, 9]);
        self
    }

    /// Length in 16 bits, then the text; longer texts than that are cut.
    fn name(&mut self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
        self.0.extend((bytes.len() as u16).to_be_bytes());
        self.0.extend(bytes);
    }
}

/// What a server's command says, flattened.
#[derive(Debug, Default, PartialEq)]
pub struct Command {
    pub name: String,
    pub transaction: f64,
    /// Numbers that stand alone, as createStream's answer does.
    pub numbers: Vec<f64>,
    /// The string fields of all its objects.
    pub fields: Vec<(String, String)>,
}

impl Command {
    /// `None` where it is not a command, or cut off. A transaction left out is 0.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut out = Self::default();
        let mut scalars = Vec::new();
        while !bytes.is_empty() {
            match value(&mut bytes, &mut out.fields, 0)? {
                Scalar::Text(text) if scalars.is_empty() && out.name.is_empty() => out.name = text,
                Scalar::Number(n) => scalars.push(n),
                _ => {}
            }
        }
        if let Some((transaction, rest)) = scalars.split_first() {
            (out.transaction, out.numbers) = (*transaction, rest.to_vec());
        }
        (!out.name.is_empty()).then_some(out)
    }

    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

enum Scalar {
    Text(String),
    Number(f64),
    Other,
}

fn value(bytes: &mut &[u8], fields: &mut Vec<(String, String)>, depth: usize) -> Option<Scalar> {
    let marker = take(bytes, 1)?[0];
    Some(match marker {
        0 => Scalar::Number(f64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
        1 => take(bytes, 1).map(|_| Scalar::Other)?,
        2 => Scalar::Text(text(bytes)?),
        3 | 8 if depth < DEPTH_MAX => {
            take(bytes, if marker == 8 { 4 } else { 0 })?;
            object(bytes, fields, depth)?
        }
        5 | 6 => Scalar::Other,
        10 if depth < DEPTH_MAX => {
            let count = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
            // Each value takes a byte at least, so a count that lies ends with the bytes.
            (0..count).try_for_each(|_| value(bytes, fields, depth + 1).map(drop))?;
            Scalar::Other
        }
        11 => take(bytes, 10).map(|_| Scalar::Other)?,
        12 => {
            let length = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
            take(bytes, usize::try_from(length).ok()?).map(|_| Scalar::Other)?
        }
        _ => return None,
    })
}

fn object(bytes: &mut &[u8], fields: &mut Vec<(String, String)>, depth: usize) -> Option<Scalar> {
    loop {
        let name = text(bytes)?;
        if name.is_empty() && bytes.first() == Some(&9) {
            take(bytes, 1)?;
            return Some(Scalar::Other);
        }
        if let Scalar::Text(value) = value(bytes, fields, depth + 1)? {
            fields.push((name, value));
        }
    }
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = u16::from_be_bytes(take(bytes, 2)?.try_into().ok()?);
    Some(String::from_utf8_lossy(take(bytes, usize::from(length))?).into_owned())
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = Writer::command("onStatus", 0.0).null().object(&[
            ("level", "error"),
            ("code", "NetStream.Publish.BadName"),
            ("description", "no such key"),
        ]);
        let command = Command::parse(&status.0).unwrap();
        assert_eq!((command.name.as_str(), command.field("code")), ("onStatus", "NetStream.Publish.BadName"));
        for cut in 0..status.0.len() {
            let _ = Command::parse(&status.0[..cut]);
        }
    }

    #[test]
    fn lists_and_nested_objects_are_passed_over() {
        let mut answer = Writer::command("_result", 1.0).object(&[("a", "b")]);
        answer
            .0
            .extend(b"\x0a\0\0\0\x02\x02\0\x04avc1\x02\0\x04mp4a\x03\0\x01m\x03\0\x01n\0\x40\x10\0\0\0\0\0\0\0\0\x09\0\0\x09");
        let answer = answer.object(&[("code", "NetConnection.Connect.Success")]);
        assert_eq!(Command::parse(&answer.0).unwrap().field("code"), "NetConnection.Connect.Success");
    }

    #[test]
    fn the_stream_number_is_the_second_number() {
        let answer = Writer::command("_result", 4.0).null().number(1.0);
        let command = Command::parse(&answer.0).unwrap();
        assert_eq!((command.transaction, command.numbers), (4.0, vec![1.0]));
    }
}
