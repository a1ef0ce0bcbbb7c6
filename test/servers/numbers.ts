/** Whole numbers as a table that every kind of server knows; MariaDB's seq_1_to_9 is its own. */
const digits = Array.from({ length: 10 }, (_, digit) => `SELECT ${digit}${digit === 0 ? " AS d" : ""}`).join(
  " UNION ALL ",
);

/** A derived table with the numbers from `first` to `last` in its column `seq`, in no order. */
export function numbersSql(first: number, last: number): string {
  const count = last - first + 1;
  const width = Math.max(1, String(count - 1).length);
  const places = Array.from({ length: width }, (_, place) => `d${place}.d * ${10 ** place}`);
  const tables = places.map((_, place) => `(${digits}) d${place}`);
  const sum = places.join(" + ");
  return `(SELECT ${first} + ${sum} AS seq FROM ${tables.join(" CROSS JOIN ")} WHERE ${sum} < ${count}) numbers`;
}
