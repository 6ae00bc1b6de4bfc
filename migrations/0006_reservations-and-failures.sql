DROP INDEX "uploads_unsettled";--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "failed_upload_id" uuid;--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "failed_begun_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "failed_ended_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "failed_reason" text;--> statement-breakpoint
CREATE INDEX "audit_events_at" ON "audit_events" USING btree ("at");--> statement-breakpoint
CREATE INDEX "uploads_holding" ON "uploads" USING btree ("collection_id") WHERE "uploads"."state" in ('open', 'committing') or "uploads"."reserved_bytes" > 0;--> statement-breakpoint
CREATE INDEX "uploads_ended" ON "uploads" USING btree ("ended_at") WHERE "uploads"."cleaned_at" is not null;--> statement-breakpoint
CREATE INDEX "versions_purged" ON "versions" USING btree ("purged_at") WHERE "versions"."state" = 'purged';--> statement-breakpoint
-- Lapsed and ended uploads gave back what the store still had of them. It is reserved again, until it is deleted.
UPDATE "uploads" u SET "reserved_bytes" = s.bytes
FROM (SELECT "upload_id", sum("size") AS bytes FROM "segments" GROUP BY "upload_id") s
WHERE s."upload_id" = u."id" AND u."reserved_bytes" <> s.bytes;
--> statement-breakpoint
UPDATE "collections" c SET "reserved_bytes" =
	coalesce((SELECT sum(u."reserved_bytes") FROM "uploads" u WHERE u."collection_id" = c."id"), 0);
--> statement-breakpoint
-- One that had only such uploads may have no row.
INSERT INTO "organizations" ("name", "stored_bytes", "reserved_bytes", "trash_bytes")
SELECT DISTINCT "organization", 0, 0, 0 FROM "uploads" WHERE "organization" <> '' ON CONFLICT DO NOTHING;
--> statement-breakpoint
UPDATE "organizations" o SET "reserved_bytes" =
	coalesce((SELECT sum(u."reserved_bytes") FROM "uploads" u WHERE u."organization" = o."name"), 0);
--> statement-breakpoint
UPDATE "collections" c SET
	"failed_upload_id" = f."id", "failed_begun_at" = f."begun_at", "failed_ended_at" = f."ended_at", "failed_reason" = f."abort_reason"
FROM (
	SELECT DISTINCT ON ("collection_id") "collection_id", "id", "begun_at", "ended_at", "abort_reason"
	FROM "uploads" WHERE "state" IN ('aborted', 'expired') ORDER BY "collection_id", "begun_at" DESC
) f WHERE f."collection_id" = c."id";
--> statement-breakpoint
-- The version of a committed upload has them; of one without a version nobody is shown them.
UPDATE "uploads" SET "labels" = '{}', "client_metadata" = '{}' WHERE "state" NOT IN ('open', 'committing');
--> statement-breakpoint
-- A scope with roles by the ten thousand made every call of its session slow. Its user logs in again.
UPDATE "sessions" SET "revoked_at" = now() WHERE "revoked_at" IS NULL AND octet_length("scope"::text) > 65536;
