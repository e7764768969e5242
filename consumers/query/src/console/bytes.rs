//! Bytes of unknown content, shown safely: hexadecimal beside printable ASCII, and record headers.

use std::fmt::Write as _;

/// How many bytes are shown.
pub const SHOWN_MAX: usize = 256;
/// How many bytes one line has.
const LINE: usize = 16;
/// How many headers are shown.
const HEADERS_MAX: usize = 32;
/// How much of a name or value of a header is shown, characters.
const HEADER_CHARS_MAX: usize = 200;

/// Lines of offset, hexadecimal and ASCII; of at most [`SHOWN_MAX`] bytes.
pub fn preview(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
    let mut text = String::new();
    for (index, line) in shown.chunks(LINE).enumerate() {
        let hex = line.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x} ");
            hex
        });
        let _ = writeln!(text, "{:04x}  {hex:<48} {}", index * LINE, ascii(line));
    }
    text
}

fn ascii(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '·',
    };
    bytes.iter().map(shown).collect()
}

/// Names and values of a record's headers; a value that is not text is shown as hexadecimal. Each is 4
/// bytes of length and the name, 4 bytes of length (-1: no value) and the value.
pub fn headers(mut bytes: &[u8]) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() && all.len() < HEADERS_MAX {
        let Some(Field::Bytes(name)) = field(&mut bytes) else {
            break;
        };
        let Some(value) = field(&mut bytes) else {
            break;
        };
        let value = match value {
            Field::Bytes(value) => Some(shown(value)),
            Field::Null => None,
        };
        all.push((shown(name), value));
    }
    all
}

enum Field<'a> {
    Bytes(&'a [u8]),
    Null,
}

/// None where the bytes end too early.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    let length = i32::from_be_bytes(*length);
    if length == -1 {
        return Some(Field::Null);
    }
    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Field::Bytes(value))
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => {
            text.chars().take(HEADER_CHARS_MAX).collect()
        }
        _ => bytes
            .iter()
            .take(HEADER_CHARS_MAX / 2)
            .fold("0x".to_owned(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_hexadecimal_and_ascii() {
        assert_eq!(preview(b""), "");
        assert_eq!(
            preview(b"<b>\x00\xff~"),
            format!("0000  {:<48} <b>··~\n", "3c 62 3e 00 ff 7e ")
        );
        let long = preview(&[b'a'; 300]);
        assert_eq!(long.lines().count(), SHOWN_MAX / LINE);
        assert!(long.lines().last().unwrap().starts_with("00f0  61 61"));
    }

    #[test]
    fn headers_are_read_as_far_as_they_go() {
        let mut bytes =
            b"\0\0\0\x01a\0\0\0\x02hi\0\0\0\x01b\xff\xff\xff\xff\0\0\0\x01c\0\0\0\x01\x01".to_vec();
        let all = vec![
            ("a".to_owned(), Some("hi".to_owned())),
            ("b".to_owned(), None),
            ("c".to_owned(), Some("0x01".to_owned())),
        ];
        assert_eq!(headers(&bytes), all);
        bytes.extend_from_slice(b"\0\0\0\xff");
        assert_eq!(headers(&bytes), all);
    }
}
