CREATE TABLE "replicas" (
	"id" uuid PRIMARY KEY NOT NULL,
	"host" text NOT NULL,
	"version" text NOT NULL,
	"started_at" timestamp (3) with time zone NOT NULL,
	"seen_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "upkeep_runs" (
	"kind" text PRIMARY KEY NOT NULL,
	"started_at" timestamp (3) with time zone NOT NULL,
	"finished_at" timestamp (3) with time zone,
	"seen_at" timestamp (3) with time zone NOT NULL,
	"actor" text NOT NULL,
	"counts" jsonb NOT NULL,
	"error" text DEFAULT '' NOT NULL
);
--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "live_versions" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "collections" ADD COLUMN "counted_bytes" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
CREATE INDEX "replicas_seen" ON "replicas" USING btree ("seen_at");--> statement-breakpoint
CREATE INDEX "versions_size" ON "versions" USING btree ("collection_id","size") WHERE "versions"."state" = 'live';--> statement-breakpoint
CREATE INDEX "versions_without_manifest" ON "versions" USING btree ("collection_id","number") WHERE "versions"."state" = 'live' and "versions"."manifest_revision" = 0;--> statement-breakpoint
CREATE INDEX "versions_damaged" ON "versions" USING btree ("collection_id","number") WHERE "versions"."state" = 'live' and "versions"."damage" <> '';--> statement-breakpoint
CREATE INDEX "versions_shrinking" ON "versions" USING btree ("collection_id",("size"::float8 / "usual_size")) WHERE "versions"."state" = 'live' and "versions"."confirmed_at" is null and "versions"."usual_size" > 0;--> statement-breakpoint
ALTER TABLE "collections" ADD CONSTRAINT "collections_live" CHECK ("collections"."live_versions" >= 0 and "collections"."counted_bytes" >= 0);--> statement-breakpoint
UPDATE "collections" SET "live_versions" = live."count", "counted_bytes" = live."counted"
  FROM (SELECT "collection_id", count(*) AS "count", sum(greatest("size", 16384)) AS "counted"
    FROM "versions" WHERE "state" = 'live' GROUP BY "collection_id") live
  WHERE "collections"."id" = live."collection_id";--> statement-breakpoint
CREATE FUNCTION "count_new_live_versions"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE "collections" SET "live_versions" = "live_versions" + live."count", "counted_bytes" = "counted_bytes" + live."counted"
    FROM (SELECT "collection_id", count(*) AS "count", sum(greatest("size", 16384)) AS "counted"
      FROM "added" WHERE "state" = 'live' GROUP BY "collection_id") live
    WHERE "collections"."id" = live."collection_id";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE FUNCTION "count_live_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD."state" = 'live' THEN
    UPDATE "collections" SET "live_versions" = "live_versions" - 1, "counted_bytes" = "counted_bytes" - greatest(OLD."size", 16384)
      WHERE "id" = OLD."collection_id";
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF NEW."state" = 'live' THEN
      UPDATE "collections" SET "live_versions" = "live_versions" + 1, "counted_bytes" = "counted_bytes" + greatest(NEW."size", 16384)
        WHERE "id" = NEW."collection_id";
    END IF;
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "versions_counted_new" AFTER INSERT ON "versions" REFERENCING NEW TABLE AS "added"
  FOR EACH STATEMENT EXECUTE FUNCTION "count_new_live_versions"();--> statement-breakpoint
CREATE TRIGGER "versions_counted" AFTER UPDATE OF "state", "size", "collection_id" ON "versions" FOR EACH ROW
  WHEN (OLD."state" IS DISTINCT FROM NEW."state" OR OLD."size" IS DISTINCT FROM NEW."size" OR OLD."collection_id" IS DISTINCT FROM NEW."collection_id")
  EXECUTE FUNCTION "count_live_version"();--> statement-breakpoint
CREATE TRIGGER "versions_counted_gone" AFTER DELETE ON "versions" FOR EACH ROW
  WHEN (OLD."state" = 'live') EXECUTE FUNCTION "count_live_version"();
