// RFC 3339 as parseTocTime of src/lib/estargz/toc-of-plan.ts reads it.

#include "toc.h"

static bool digits(const uint8_t *at, size_t count, int64_t *number)
{
	*number = 0;
	for (size_t i = 0; i < count; i++) {
		if (at[i] < '0' || at[i] > '9')
			return false;
		*number = *number * 10 + (at[i] - '0');
	}
	return true;
}

// Days from 1970-01-01 to a day of the Gregorian calendar, counted in eras of 400 years that start with March.
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
	year -= month <= 2;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
	return era * 146097 + day_of_era - 719468;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
	static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return days[month - 1] + (month == 2 && is_leap);
}

// `.` and one to nine digits; where what follows starts, or NULL.
static const uint8_t *parse_fraction(const uint8_t *at, const uint8_t *end, uint32_t *nanoseconds)
{
	uint32_t unit = 100000000;
	size_t count = 0;
	for (at++; at < end && *at >= '0' && *at <= '9'; at++, count++) {
		*nanoseconds += (uint32_t)(*at - '0') * unit;
		unit /= 10;
	}
	return count >= 1 && count <= 9 ? at : NULL;
}

void parse_time(struct text text, int64_t *seconds, uint32_t *nanoseconds)
{
	const uint8_t *at = text.at, *end = text.at + text.size;
	int64_t year, month, day, hour, minute, second, offset_hours = 0, offset_minutes = 0;
	uint32_t fraction = 0;
	*seconds = 0;
	*nanoseconds = 0;
	// 2026-01-02T03:04:05Z
	if (text.size < 20 || at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':' ||
	    !digits(at, 4, &year) || !digits(at + 5, 2, &month) || !digits(at + 8, 2, &day) || !digits(at + 11, 2, &hour) ||
	    !digits(at + 14, 2, &minute) || !digits(at + 17, 2, &second))
		return;
	at += 19;
	if (*at == '.' && !(at = parse_fraction(at, end, &fraction)))
		return;
	int64_t sign = 1;
	if (end - at == 6 && (at[0] == '+' || at[0] == '-') && at[3] == ':') {
		sign = at[0] == '+' ? 1 : -1;
		if (!digits(at + 1, 2, &offset_hours) || !digits(at + 4, 2, &offset_minutes))
			return;
	} else if (end - at != 1 || *at != 'Z') {
		return;
	}
	if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 59 ||
	    offset_hours > 23 || offset_minutes > 59)
		return;
	int64_t days = days_from_civil(year, month, day);
	*seconds = days * 86400 + hour * 3600 + minute * 60 + second - sign * (offset_hours * 3600 + offset_minutes * 60);
	*nanoseconds = fraction;
}
