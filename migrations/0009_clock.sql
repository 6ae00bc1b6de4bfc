ALTER TABLE "installation" ADD COLUMN "clock_newest_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "installation" ADD COLUMN "clock_paused_until" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "installation" ADD COLUMN "clock_pause_reason" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "protected_for_ms" bigint;--> statement-breakpoint
UPDATE "versions" SET "protected_for_ms" = greatest(0, extract(epoch from "protected_until" - "committed_at") * 1000)
  WHERE "protected_until" IS NOT NULL;--> statement-breakpoint
UPDATE "installation" SET "clock_newest_at" = greatest(
  (SELECT max("committed_at") FROM "versions"),
  (SELECT max("begun_at") FROM "uploads"),
  (SELECT max("at") FROM "audit_events"));
