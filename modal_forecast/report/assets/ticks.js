// Numbers and days as people read them, and where an axis puts its marks. Pure functions.
// page.py joins all scripts, in the order of its SCRIPTS, into one module.

const MS_PER_DAY = 86_400_000;

// What one value is of: the first day of the period `index` after the one that begins on `start`; how it is
// named in full and where the forecast begins; its days on average; what Page Up and Page Down move by.
const GRAINS = {
  day: {
    dateOn: (start, index) => new Date(start.getTime() + index * MS_PER_DAY),
    nameOf: (date) => formatDate(date),
    beginning: (date) => formatDate(date).replace(/^\w+ /, ""),
    days: 1,
    page: 7,
  },
  week: {
    dateOn: (start, index) => new Date(start.getTime() + index * 7 * MS_PER_DAY),
    nameOf: (date) => `Week of ${formatDate(date).replace(/^\w+ /, "")}`,
    beginning: (date) => formatDate(date).replace(/^\w+ /, ""),
    days: 7,
    page: 4,
  },
  month: {
    dateOn: (start, index) => new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + index, 1)),
    nameOf: (date) => formatMonth(date),
    beginning: (date) => formatMonth(date),
    days: 365.2425 / 12,
    page: 12,
  },
};

const formatMonth = (date) => formatDate(date).split(" ").slice(2).join(" ");

// "Tue 3 Feb 2026". toUTCString is the one date format that no locale and no time zone changes.
function formatDate(date) {
  const [weekday, day, month, year] = date.toUTCString().split(/,? /);
  return `${weekday} ${Number(day)} ${month} ${year}`;
}

function numberFormat(decimals) {
  const format = new Intl.NumberFormat("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
    signDisplay: "negative",
  });
  return (value) => format.format(value);
}

// The marks of a value axis that holds low..high, at round numbers, the first and last just outside.
function valueTicks(low, high, count) {
  const step = roundStep((high - low || Math.abs(high) || 1) / count);
  const ticks = [];
  for (let i = Math.floor(low / step); ticks.length < 2 || ticks.at(-1) < high; i++) ticks.push(i * step);
  return { ticks, format: axisNumberFormat(step, ticks.at(-1)) };
}

function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= step);
}

function axisNumberFormat(step, largest) {
  // Long numbers are shortened to 12.5M: in full they would take a third of a phone's width from the chart.
  const format =
    largest < 10_000_000
      ? new Intl.NumberFormat("en-US", { maximumFractionDigits: Math.max(0, 1 - Math.floor(Math.log10(step))) })
      : new Intl.NumberFormat("en-US", { maximumFractionDigits: 3, notation: "compact" });
  return (value) => format.format(value);
}

// 1970-01-05, day 4 of the epoch, was a Monday: weeks are marked on Mondays.
const onEvery = (days) => (date) => (date / MS_PER_DAY - 4) % days === 0;
// A week marks the month that begins in it.
const onMonths = (months) => (date, next) => {
  const month = new Date(next - 1).getUTCMonth();
  return (date.getUTCDate() === 1 || date.getUTCMonth() !== month) && month % months === 0;
};
const onYears = (years) => (date, next) =>
  onMonths(12)(date, next) && new Date(next - 1).getUTCFullYear() % years === 0;
const DATE_STEPS = [
  { days: 1, isTick: onEvery(1) },
  { days: 2, isTick: onEvery(2) },
  { days: 7, isTick: onEvery(7) },
  { days: 14, isTick: onEvery(14) },
  { days: 30, isTick: onMonths(1) },
  { days: 91, isTick: onMonths(3) },
  { days: 182, isTick: onMonths(6) },
  { days: 365, isTick: onMonths(12) },
  { days: 730, isTick: onYears(2) },
  { days: 1826, isTick: onYears(5) },
  { days: 3652, isTick: onYears(10) },
];

// The marks of a date axis, at least minDays apart: "3 Feb" or "Feb", and the year where it changes.
function dateTicks(view, dateOn, minDays) {
  const step = DATE_STEPS.find(({ days }) => days >= minDays) ?? DATE_STEPS.at(-1);
  const ticks = [];
  let lastYear = "";
  for (let day = view.first; day <= view.last; day++) {
    const date = dateOn(day);
    if (!step.isTick(date, dateOn(day + 1))) continue;
    const shown = step.days < 30 ? date : new Date(dateOn(day + 1) - 1);
    const [, dayOfMonth, month, year] = formatDate(shown).split(" ");
    ticks.push({
      day,
      label: step.days < 30 ? `${dayOfMonth} ${month}` : month,
      year: year === lastYear ? "" : year,
    });
    lastYear = year;
  }
  return ticks;
}
