//! The middle and the ends of several runs.

/// Values of the same thing, measured several times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least of all.
    pub least: f64,
    /// The middle one, or halfway between the two in the middle.
    pub median: f64,
    /// The most of all.
    pub most: f64,
}

impl Spread {
    /// None without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Self {
            least,
            median: f64::midpoint(values[low], values[high]),
            most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_halfway() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        for (values, least, median, most) in [
            (&[4.0][..], 4.0, 4.0, 4.0),
            (&[9.0, 1.0, 2.0], 1.0, 2.0, 9.0),
            (&[4.0, 1.0, 2.0, 9.0], 1.0, 3.0, 9.0),
        ] {
            let expected = Spread {
                least,
                median,
                most,
            };
            assert_eq!(of(values), Some(expected));
        }
    }
}
