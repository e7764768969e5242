//! Ids derived from what the sender already has, so that a retry is the same transaction.

use uuid::Uuid;

/// The namespace of every derived id. It never changes, or every retry would become a new transaction.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x5c0b_2f3e_8d11_5a6b_9b7c_6d69_6c6c_7261);

/// Stands between the parts of a name: U+001F (unit separator), which is valid in no field.
pub const SEPARATOR: char = '\u{1f}';

/// The UUIDv5 of `source` and `parts`. The same text gives the same id on every machine.
pub fn derive(source: &str, parts: &[&str]) -> Uuid {
    let mut name = String::from(source);
    for part in parts {
        name.push(SEPARATOR);
        name.push_str(part);
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_fixed_for_ever() {
        let id = derive("berka", &["1"]);
        // Computed with Python's uuid.uuid5.
        assert_eq!(id.get_version_num(), 5);
        assert_eq!(id.to_string(), "e2c173a3-e8e7-5489-980c-67af3aaf3e51");
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(derive("s", &["ab", "c"]), derive("s", &["a", "bc"]));
        assert_ne!(derive("sa", &["b"]), derive("s", &["ab"]));
    }
}
