//! The five fields of a crontab: read with an error for the part that is wrong, then left to the `cron` crate's calendar.
//!
//! Fields are spelt out for that crate as lists, because it counts weekdays from 1 and wants both days to match; here 0 and
//! 7 are Sunday, and when both days are restricted one of them is enough, as in every crontab. Times are those of a clock
//! on a wall, without a zone.

use std::{collections::BTreeSet, fmt, str::FromStr};

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

/// Minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    /// One calendar, or two of which either is enough.
    calendars: Vec<cron::Schedule>,
}

/// What is wrong with five fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CronError {
    /// The part that is wrong, as it is written.
    pub part: String,
    /// What is wrong with it.
    pub message: String,
}

struct Field {
    name: &'static str,
    /// One of its values, with its article.
    called: &'static str,
    least: u32,
    most: u32,
    /// Words for the numbers from `least` on.
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", called: "a minute", least: 0, most: 59, words: &[] },
    Field { name: "hour", called: "an hour", least: 0, most: 23, words: &[] },
    Field { name: "day of the month", called: "a day of the month", least: 1, most: 31, words: &[] },
    Field { name: "month", called: "a month", least: 1, most: 12, words: &MONTHS },
    Field { name: "day of the week", called: "a day of the week", least: 0, most: 7, words: &WEEKDAYS },
];

impl Cron {
    /// The first time after `after` that the fields match.
    pub fn next(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = after.and_utc();
        self.calendars.iter().filter_map(|calendar| calendar.after(&after).next()).min().map(|next| next.naive_utc())
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let wrong = |message: String| CronError { part: text.to_owned(), message };
        let written: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = written[..] else {
            let count = written.len();
            return Err(wrong(format!("a schedule has 5 fields (minute hour day month weekday), this has {count}")));
        };
        let [_, _, _, _, weekdays] = &FIELDS;
        let times: Vec<String> = FIELDS[..4]
            .iter()
            .zip([minute, hour, day, month])
            .map(|(field, written)| Ok(field.list(&field.values(written)?)))
            .collect::<Result<_, CronError>>()?;
        // From 0 to 7 with Sunday twice, to 1 to 7 with Sunday first.
        let values: BTreeSet<u32> = weekdays.values(weekday)?.into_iter().map(|value| value % 7 + 1).collect();
        let days = Field { least: 1, most: 7, words: &[], ..*weekdays }.list(&values);
        let either = !day.starts_with('*') && !weekday.starts_with('*');
        let pairs =
            if either { vec![(times[2].as_str(), "*"), ("*", &days)] } else { vec![(times[2].as_str(), &*days)] };
        let calendars: Vec<cron::Schedule> = pairs
            .into_iter()
            .map(|(day, weekday)| {
                let [minute, hour, _, month] = &times[..] else { return Err(wrong("has too few fields".into())) };
                let fields = format!("0 {minute} {hour} {day} {month} {weekday}");
                fields.parse().map_err(|error| wrong(format!("is not a schedule: {error}")))
            })
            .collect::<Result<_, _>>()?;
        let cron = Self { text: written.join(" "), calendars };
        // Nine years hold every leap day.
        let start = chrono::NaiveDate::from_ymd_opt(2023, 1, 1).unwrap_or_default().and_time(Default::default());
        match cron.next(start) {
            Some(_) => Ok(cron),
            None => {
                Err(CronError { part: day.to_owned(), message: format!("there is no day `{day}` in month `{month}`") })
            }
        }
    }
}

impl Field {
    /// The numbers that a field of this kind stands for.
    fn values(&self, written: &str) -> Result<BTreeSet<u32>, CronError> {
        let mut values = BTreeSet::new();
        for item in written.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, self.step(item, step)?),
                None => (item, 1),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((first, last)) => (self.value(item, first)?, self.value(item, last)?),
                None if item.contains('/') => {
                    let message = format!("write the whole range that `/{step}` divides, as `*/{step}`");
                    return Err(CronError { part: item.to_owned(), message });
                }
                None => self.value(item, range).map(|value| (value, value))?,
            };
            if first > last {
                let message = format!("the range `{range}` of the {} ends before it begins", self.name);
                return Err(CronError { part: item.to_owned(), message });
            }
            values.extend((first..=last).step_by(step as usize));
        }
        Ok(values)
    }

    fn value(&self, item: &str, written: &str) -> Result<u32, CronError> {
        let lower = written.to_ascii_lowercase();
        let word = self.words.iter().position(|word| *word == lower);
        let number = word.and_then(|place| u32::try_from(place).ok()).map(|place| place + self.least);
        let digits = || written.parse().ok().filter(|_| written.bytes().all(|byte| byte.is_ascii_digit()));
        number.or_else(digits).filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let words = match self.words {
                [first, .., last] => format!(", or `{first}` to `{last}`"),
                _ => String::new(),
            };
            let message = format!("`{written}` is not {}: {} to {}{words}", self.called, self.least, self.most);
            CronError { part: item.to_owned(), message }
        })
    }

    fn step(&self, item: &str, written: &str) -> Result<u32, CronError> {
        written.parse().ok().filter(|step| (1..=self.most).contains(step)).ok_or_else(|| CronError {
            part: item.to_owned(),
            message: format!("`/{written}` is not a step: 1 to {}", self.most),
        })
    }

    fn list(&self, values: &BTreeSet<u32>) -> String {
        if values.len() as u32 == self.most - self.least + 1 {
            return "*".to_owned();
        }
        values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str, after: &str) -> String {
        let after = NaiveDateTime::parse_from_str(after, "%Y-%m-%d %H:%M").unwrap();
        let next = text.parse::<Cron>().unwrap().next(after).unwrap();
        next.format("%Y-%m-%d %H:%M %a").to_string()
    }

    #[test]
    fn fields_mean_what_they_mean_in_a_crontab() {
        // A Sunday.
        let now = "2026-11-22 21:13";
        assert_eq!(after("0 * * * *", now), "2026-11-22 22:00 Sun");
        assert_eq!(after("*/20 * * * *", now), "2026-11-22 21:20 Sun");
        assert_eq!(after("5-10/5,40 3 * * *", now), "2026-11-23 03:05 Mon");
        assert_eq!(after("0 0 * * 0", now), "2026-11-29 00:00 Sun");
        assert_eq!(after("0 0 * * 7", now), "2026-11-29 00:00 Sun");
        assert_eq!(after("0 0 * * Mon-fri", now), "2026-11-23 00:00 Mon");
        assert_eq!(after("0 0 * * 6-7", now), "2026-11-28 00:00 Sat");
        assert_eq!(after("0 0 1 jan *", now), "2027-01-01 00:00 Fri");
        assert_eq!(after("0 0 29 2 *", now), "2028-02-29 00:00 Tue");
        // Both days restricted: either is enough.
        assert_eq!(after("0 0 13 * 5", now), "2026-11-27 00:00 Fri");
        assert_eq!(after("0 0 13 * 5", "2026-12-11 00:00"), "2026-12-13 00:00 Sun");
        assert_eq!(after("0 0 */2 * 1", now), "2026-11-23 00:00 Mon");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| text.parse::<Cron>().unwrap_err();
        for (text, part, message) in [
            ("0 * * *", "0 * * *", "this has 4"),
            ("60 * * * *", "60", "`60` is not a minute: 0 to 59"),
            ("0 24 * * *", "24", "`24` is not an hour"),
            ("0 0 0 * *", "0", "`0` is not a day of the month: 1 to 31"),
            ("0 0 * foo *", "foo", "`foo` is not a month: 1 to 12, or `jan` to `dec`"),
            ("0 0 * * 8", "8", "0 to 7, or `sun` to `sat`"),
            ("0 0 * * fri-mon", "fri-mon", "ends before it begins"),
            ("*/0 * * * *", "*/0", "is not a step"),
            ("5/10 * * * *", "5/10", "as `*/10`"),
            ("1,,2 * * * *", "", "is not a minute"),
            ("+1 * * * *", "+1", "is not a minute"),
            ("99999999999 * * * *", "99999999999", "is not a minute"),
            ("0 0 30 2 *", "30", "there is no day `30` in month `2`"),
        ] {
            let error = wrong(text);
            assert_eq!(error.part, part, "{text}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
    }
}
