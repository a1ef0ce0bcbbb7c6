/** Why a value is not what was written. */
export type Damage = "unknown format version" | "wrong length" | "wrong checksum" | "unreadable header";

/** A value that is not what was written. The spool's edge turns it into SPOOL_CORRUPT. */
export class DamagedRecord extends Error {
  override readonly name = "DamagedRecord";
  readonly damage: Damage;

  constructor(damage: Damage) {
    super(damage);
    this.damage = damage;
  }
}
