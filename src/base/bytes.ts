/** Bytes with one decimal in the largest fitting unit: `640 B`, `13.8 MiB`. */
export function showBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = bytes < 1024 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  return `${unit === 0 ? Math.ceil(bytes) : (bytes / 1024 ** unit).toFixed(1)} ${units[unit]}`;
}
