//! How moments, bytes and JSON are written in exports and checkpoints.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::ref_option,
    reason = "serde hands out references to fields"
)]

use serde::{Deserialize, Serialize};

use crate::chain::Numbers;

/// [`Numbers`] as they are written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Numbers")]
pub(super) struct NumbersText {
    partition: i32,
    batch: i64,
    incarnation: i32,
    from_offset: i64,
    next_offset: i64,
    first_seq: i64,
    next_seq: i64,
    posted: i32,
    duplicate: i32,
    rejected: i32,
    refused: i32,
    parked: i32,
    discarded: i32,
    skipped: i64,
    #[serde(with = "micros")]
    recorded_at: i64,
}

/// Microseconds since 1970 as [`time`].
pub(super) mod micros {
    use serde::{Deserializer, Serializer};

    use crate::store::Micros;

    pub(in crate::verify) fn serialize<S: Serializer>(
        at: &i64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::time::serialize(&Micros(*at), serializer)
    }

    pub(in crate::verify) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<i64, D::Error> {
        Ok(super::time::deserialize(deserializer)?.0)
    }
}

/// RFC 3339 in UTC, to the microsecond.
pub(super) mod time {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de, ser};

    use crate::store::Micros;

    pub(in crate::verify) fn serialize<S: Serializer>(
        at: &Micros,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let at = Timestamp::from_microsecond(at.0).map_err(ser::Error::custom)?;
        at.serialize(serializer)
    }

    pub(in crate::verify) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Micros, D::Error> {
        let at = Timestamp::deserialize(deserializer)?;
        if at.subsec_nanosecond() % 1000 == 0 {
            Ok(Micros(at.as_microsecond()))
        } else {
            Err(de::Error::custom(format!(
                "{at} is finer than a microsecond"
            )))
        }
    }
}

/// The same of a moment that may be missing.
pub(super) mod maybe_time {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::store::Micros;

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "super::time")] Micros);

    pub(in crate::verify) fn serialize<S: Serializer>(
        at: &Option<Micros>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Time).serialize(serializer)
    }

    pub(in crate::verify) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Micros>, D::Error> {
        let at = Option::<Time>::deserialize(deserializer)?;
        Ok(at.map(|Time(at)| at))
    }
}

/// Bytes that may be missing, as hexadecimal digits.
pub(super) mod bytes {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};

    pub(in crate::verify) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(serializer)
    }

    pub(in crate::verify) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| hex::decode(text).map_err(de::Error::custom))
            .transpose()
    }
}

/// JSON text, written as what it says.
pub(super) mod json {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, ser};
    use serde_json::value::RawValue;

    pub(in crate::verify) fn serialize<S: Serializer>(
        text: &Option<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let json = text.clone().map(RawValue::from_string).transpose();
        json.map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub(in crate::verify) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        let json = Option::<Box<RawValue>>::deserialize(deserializer)?;
        Ok(json.map(|json| json.get().to_owned()))
    }
}
