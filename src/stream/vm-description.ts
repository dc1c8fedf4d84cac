/**
 * The description that follows a stream which completed in precopy: JSON that lists the devices in
 * the order of their sections, with the fields of each (QEMU's `vmdesc`, migration/savevm.c).
 */
import * as z from "zod";

/** One device of a description. */
export interface DescribedDevice {
  idstr: string;
  instanceId: number;
  /** Bytes of its body, as its fields add up; undefined where the description does not say. */
  bytes: number | undefined;
}

interface Fields {
  fields?: readonly { size?: number | undefined; array_len?: number | undefined }[] | undefined;
  subsections?: readonly Subsection[] | undefined;
}

interface Subsection extends Fields {
  vmsd_name: string;
}

/** What introduces a subsection beside its name: the byte, the name's length, the version. */
const SUBSECTION_HEADER_BYTES = 6;

const fieldSchema = z.looseObject({
  size: z.int().nonnegative().optional(),
  array_len: z.int().nonnegative().optional(),
});

const subsectionSchema: z.ZodType<Subsection> = z.lazy(() =>
  z.looseObject({
    vmsd_name: z.string(),
    fields: z.array(fieldSchema).optional(),
    subsections: z.array(subsectionSchema).optional(),
  }),
);

const descriptionSchema = z.looseObject({
  devices: z.array(
    z.looseObject({
      name: z.string(),
      instance_id: z.int().nonnegative(),
      fields: z.array(fieldSchema).optional(),
      subsections: z.array(subsectionSchema).optional(),
    }),
  ),
});

/** The devices that a description lists; undefined for JSON that is no such description. */
export function readDescribedDevices(json: string): DescribedDevice[] | undefined {
  const parsed = descriptionSchema.safeParse(parseJson(json));
  if (!parsed.success) return undefined;
  return parsed.data.devices.map((device) => ({
    idstr: device.name,
    instanceId: device.instance_id,
    bytes: device.fields === undefined ? undefined : bytesOf(device),
  }));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function bytesOf({ fields = [], subsections = [] }: Fields): number | undefined {
  let sum = 0;
  for (const { size, array_len: count = 1 } of fields) {
    if (size === undefined) return undefined;
    sum += size * count;
  }
  for (const subsection of subsections) {
    const inner = bytesOf(subsection);
    if (inner === undefined) return undefined;
    sum += SUBSECTION_HEADER_BYTES + subsection.vmsd_name.length + inner;
  }
  return sum;
}
