//! Headers as they are kept.

/// The headers of a parked or refused record: for each one, 4 bytes of length and the name, 4 bytes of length
/// (-1: null) and the value. Ends where the bytes are of another form, which the ledger never writes.
pub fn headers(bytes: &[u8]) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let name_length = usize::try_from(take_length(&mut rest)?).ok()?;
        let name = std::str::from_utf8(take(&mut rest, name_length)?).ok()?;
        let value = match usize::try_from(take_length(&mut rest)?) {
            Ok(length) => Some(take(&mut rest, length)?),
            Err(_) => None,
        };
        Some((name, value))
    })
}

fn take_length(rest: &mut &[u8]) -> Option<i32> {
    let (length, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(i32::from_be_bytes(*length))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Incoming, Intake, LogRange};

    #[test]
    fn they_come_back_as_they_were_taken_in() {
        let given: [(&str, Option<&[u8]>); 4] = [
            ("a", Some(b"1")),
            ("empty", Some(b"")),
            ("null", None),
            ("a", Some(b"\xff")),
        ];
        let mut intake = Intake::default();
        intake.push(Incoming {
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            value: None,
            headers: given.into_iter(),
        });
        let range = LogRange {
            partition: 0,
            incarnation: 1,
            from: 0,
            next: 1,
        };
        let batch = intake.batch([range].into_iter());
        let kept = batch.headers(&batch.records(&batch.slices()[0])[0]);
        assert!(headers(kept).eq(given));
        assert!(headers(&kept[..kept.len() - 1]).eq(given[..3].iter().copied()));
        assert_eq!(headers(&[]).count(), 0);
    }
}
