// SPDX-License-Identifier: GPL-2.0

//! Values that are compared as numbers.

/// A whole number in decimal, with a sign or without and with white space around it, as Envoy takes it (`absl::SimpleAtoi`);
/// `None` for anything else, and for one that 64 bits do not have.
pub fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.trim_ascii() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    // Below zero, where there is one number more.
    digits
        .iter()
        .try_fold(0i64, |number, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            number.checked_mul(10)?.checked_sub(i64::from(digit))
        })
        .and_then(|number| {
            if negative {
                Some(number)
            } else {
                number.checked_neg()
            }
        })
}

/// Whether it is a number of `range`: two of 64 bits in the order of the machine, the first in it, the second not.
pub fn is_in(text: &[u8], range: &[u8]) -> bool {
    let Some((from, to)) = range.split_first_chunk::<8>() else {
        return false;
    };
    let Ok(to) = to.try_into() else {
        return false;
    };
    let (from, to) = (i64::from_ne_bytes(*from), i64::from_ne_bytes(to));
    parse(text).is_some_and(|number| (from..to).contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, number) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+17", Some(17)),
            (" 17\t", Some(17)),
            ("007", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("", None),
            (" ", None),
            ("-", None),
            ("+-1", None),
            ("- 1", None),
            ("1 2", None),
            ("1.0", None),
            ("0x1", None),
            ("1e3", None),
            ("\u{663}", None),
        ] {
            assert_eq!(parse(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn ranges() {
        let range = |from: i64, to: i64| [from.to_ne_bytes(), to.to_ne_bytes()].concat();
        assert!(is_in(b"10", &range(10, 20)) && is_in(b"19", &range(10, 20)));
        assert!(!is_in(b"9", &range(10, 20)) && !is_in(b"20", &range(10, 20)));
        assert!(is_in(b"-1", &range(-10, 0)) && !is_in(b"a", &range(i64::MIN, i64::MAX)));
        assert!(!is_in(b"1", b"") && !is_in(b"1", &[0; 15]) && !is_in(b"1", &[0xff; 17]));
    }
}
