import test from "ava";
import { s3Suite } from "./support/s3-tools.ts";

s3Suite(test, "minio");
