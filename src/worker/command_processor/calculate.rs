//! Sums a client may ask for: numbers, `+ - * / ^` and parentheses, with bounds on length and depth.

/// Characters in a formula.
const MAX_LENGTH: usize = 200;
/// Parentheses, signs and powers within each other.
const MAX_DEPTH: u8 = 40;

/// The value of a formula.
pub(super) fn value(formula: &str) -> Result<f64, &'static str> {
    if formula.len() > MAX_LENGTH {
        return Err("the formula is too long");
    }
    let mut sum = Sum {
        rest: formula.as_bytes(),
        depth: 0,
    };
    let value = sum.terms()?;
    if sum.peek().is_some() {
        return Err("there is something that is no number and no operator");
    }
    if value.is_finite() {
        Ok(value)
    } else {
        Err("the result is no number")
    }
}

struct Sum<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl Sum<'_> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn terms(&mut self) -> Result<f64, &'static str> {
        let mut value = self.factors()?;
        loop {
            if self.take(b'+') {
                value += self.factors()?;
            } else if self.take(b'-') {
                value -= self.factors()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn factors(&mut self) -> Result<f64, &'static str> {
        let mut value = self.signed()?;
        loop {
            if self.take(b'*') {
                value *= self.signed()?;
            } else if self.take(b'/') {
                value /= self.signed()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn signed(&mut self) -> Result<f64, &'static str> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the formula is too deep");
        }
        let value = if self.take(b'-') {
            -self.signed()?
        } else {
            let base = self.single()?;
            if self.take(b'^') {
                base.powf(self.signed()?)
            } else {
                base
            }
        };
        self.depth -= 1;
        Ok(value)
    }

    fn single(&mut self) -> Result<f64, &'static str> {
        if self.take(b'(') {
            let value = self.terms()?;
            return if self.take(b')') {
                Ok(value)
            } else {
                Err("a parenthesis is not closed")
            };
        }
        self.peek();
        let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let length = self.rest.iter().take_while(|byte| is_part(byte)).count();
        let (number, rest) = self.rest.split_at(length);
        self.rest = rest;
        let number = std::str::from_utf8(number).ok();
        number
            .and_then(|number| number.parse().ok())
            .ok_or("a number is missing")
    }
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn the_rules_of_arithmetic_hold() {
        let sums = [
            ("1+2*3", 7.0),
            ("(1+2)*3", 9.0),
            ("-2^2", -4.0),
            ("2^3^2", 512.0),
            ("2*-3", -6.0),
            (" 10 / 4 - .5 ", 2.0),
        ];
        for (formula, expected) in sums {
            assert_eq!(value(formula), Ok(expected), "{formula}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_depth_is_bounded() {
        for formula in ["", "1+", "1 2", "(1", "1)", "1..2", "one", "1/0", "9^9999", "é"] {
            assert!(value(formula).is_err(), "{formula}");
        }
        for nested in ["(", "-", "2^"] {
            assert!(value(&nested.repeat(90)).is_err());
        }
    }
}
