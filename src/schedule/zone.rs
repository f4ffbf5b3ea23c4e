//! From the time a wall clock shows to the moment it shows it, on the days when the clock is changed too.
//!
//! Two rules, held by properties over every zone: a time that comes twice counts the first time, and a time that is
//! jumped over counts at the first moment after the jump. So every time on the wall has one moment, later times never have
//! earlier ones, and times that share a moment are one.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};

use super::Cron;

/// The moment at which a clock in `zone` first shows `wall`, or is set past it. None at the end of time.
pub fn first_moment(wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        MappedLocalTime::Single(moment) => Some(moment.to_utc()),
        MappedLocalTime::Ambiguous(one, other) => Some(one.min(other).to_utc()),
        MappedLocalTime::None => GapInfo::new(&wall, &zone)?.end.map(|end| end.to_utc()),
    }
}

/// The first moment after `after` at which `cron` is due in `zone`.
pub(super) fn next(cron: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // Times up to the one shown now have had their moment; of later ones, those that come a second time have had it, too.
    let mut wall = after.with_timezone(&zone).naive_local();
    loop {
        wall = cron.next(wall)?;
        match first_moment(wall, zone) {
            Some(moment) if moment <= after => {}
            found => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Duration, Timelike};
    use chrono_tz::TZ_VARIANTS;
    use proptest::prelude::*;

    use super::*;

    fn due(cron: &str, zone: Tz, from: &str, count: usize) -> Vec<String> {
        let cron: Cron = cron.parse().unwrap();
        let start: DateTime<Utc> = from.parse().unwrap();
        let times = std::iter::successors(next(&cron, zone, start), |last| next(&cron, zone, *last));
        times.take(count).map(|time| time.with_timezone(&zone).format("%d %H:%M %:z").to_string()).collect()
    }

    #[test]
    fn a_time_that_does_not_exist_is_due_once_after_the_gap() {
        let (zone, before) = (chrono_tz::Europe::Berlin, "2026-03-28T12:00:00Z");
        assert_eq!(due("30 2 * * *", zone, before, 2), ["29 03:00 +02:00", "30 02:30 +02:00"]);
        // Its own time, and those of the hour that was jumped over, are one.
        assert_eq!(due("*/30 2-3 * * *", zone, before, 2), ["29 03:00 +02:00", "29 03:30 +02:00"]);
        // A whole day that an island has never had.
        let apia = due("0 */12 * * *", chrono_tz::Pacific::Apia, "2011-12-29T23:00:00Z", 3);
        assert_eq!(apia, ["31 00:00 +14:00", "31 12:00 +14:00", "01 00:00 +14:00"]);
    }

    #[test]
    fn a_time_that_comes_twice_is_due_the_first_time() {
        let (zone, before) = (chrono_tz::Europe::Berlin, "2026-10-24T12:00:00Z");
        assert_eq!(due("30 2 * * *", zone, before, 2), ["25 02:30 +02:00", "26 02:30 +01:00"]);
        assert_eq!(
            due("0 * * * *", zone, "2026-10-24T23:30:00Z", 3),
            ["25 02:00 +02:00", "25 03:00 +01:00", "25 04:00 +01:00"]
        );
        // Half an hour, on the other side of the world.
        let howe = due("45 1 * * *", chrono_tz::Australia::Lord_Howe, "2026-04-04T12:00:00Z", 2);
        assert_eq!(howe, ["05 01:45 +11:00", "06 01:45 +10:30"]);
    }

    fn zones() -> impl Strategy<Value = Tz> {
        prop::sample::select(&TZ_VARIANTS[..])
    }

    /// A minute of the years 1900 to 2090, which hold every change that is known.
    fn minutes() -> impl Strategy<Value = NaiveDateTime> {
        let first = chrono::NaiveDate::from_ymd_opt(1900, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        (0..190 * 366 * 1440i64).prop_map(move |minutes| first + Duration::minutes(minutes))
    }

    fn crons() -> impl Strategy<Value = Cron> {
        let field = |most: u32| prop_oneof![Just("*".to_owned()), (0..most).prop_map(|value| value.to_string())];
        let steps = prop_oneof![field(59), (1..31u32).prop_map(|step| format!("*/{step}"))];
        (steps, field(23), field(6))
            .prop_map(|(minute, hour, day)| format!("{minute} {hour} * * {day}").parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        /// The definition, checked minute by minute around the moment: the clock shows the time then and never before, or
        /// shows less just before and more from then on.
        #[test]
        fn every_time_on_a_wall_has_one_moment(zone in zones(), wall in minutes()) {
            let moment = first_moment(wall, zone).unwrap();
            let shown = |moment: DateTime<Utc>| moment.with_timezone(&zone).naive_local();
            prop_assert!(shown(moment) >= wall);
            prop_assert!(shown(moment - Duration::seconds(1)) < wall);
            prop_assert!((1..=48 * 60).all(|minutes| shown(moment - Duration::minutes(minutes)) != wall));
        }

        /// On the same scale: what is later on the wall is never earlier in time, so no due time is passed by.
        #[test]
        fn later_on_the_wall_is_not_earlier_in_time(zone in zones(), wall in minutes(), more in 0..3000i64) {
            prop_assert!(first_moment(wall, zone) <= first_moment(wall + Duration::minutes(more), zone));
        }

        /// Found by going through every minute, where no clever search can miss one.
        #[test]
        fn the_next_due_time_is_the_first_that_exists(zone in zones(), cron in crons(), start in minutes()) {
            let start = start.and_utc();
            let found = next(&cron, zone, start).unwrap();
            let mut wall = start.with_timezone(&zone).naive_local() - Duration::days(2);
            let mut first = None;
            while first.is_none() {
                wall = cron.next(wall).unwrap();
                first = first_moment(wall, zone).filter(|moment| *moment > start);
            }
            prop_assert_eq!(Some(found), first);
        }
    }

    /// Whether `*/30 * * * *` is due, by going through the minutes: the clock shows such a time and has not shown it in the
    /// last three hours, or was set past one a moment ago.
    fn is_due(moment: DateTime<Utc>, zone: Tz) -> bool {
        let shown = |moment: DateTime<Utc>| moment.with_timezone(&zone).naive_local();
        let (now, before) = (shown(moment), shown(moment - Duration::minutes(1)));
        let is_first = || (1..=180).all(|minutes| shown(moment - Duration::minutes(minutes)) != now);
        let skipped = (1..(now - before).num_minutes())
            .any(|minutes| (before + Duration::minutes(minutes)).minute().is_multiple_of(30));
        skipped || now.minute().is_multiple_of(30) && is_first()
    }

    #[test]
    fn around_every_change_of_every_zone_each_time_is_due_once() {
        let cron: Cron = "*/30 * * * *".parse().unwrap();
        let mut changes = 0;
        for zone in TZ_VARIANTS {
            let offset = |moment: DateTime<Utc>| moment.with_timezone(&zone).naive_local() - moment.naive_utc();
            let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
            let days = (0..365).map(|day| start + Duration::days(day));
            for change in days.filter(|day| offset(*day) != offset(*day + Duration::days(1))) {
                changes += 1;
                let end = change + Duration::hours(30);
                let due = std::iter::successors(next(&cron, zone, change), |last| next(&cron, zone, *last));
                let due: Vec<DateTime<Utc>> = due.take_while(|moment| *moment <= end).collect();
                let minutes = (1..=30 * 60).map(|minute| change + Duration::minutes(minute));
                let expected: Vec<DateTime<Utc>> = minutes.filter(|moment| is_due(*moment, zone)).collect();
                assert_eq!(due, expected, "{zone} {change}");
            }
        }
        assert!(changes > 200, "there are changes: {changes}");
    }
}
